"""A whole model of optical flow's size, forward, once: what it takes in time and memory.

    python -m benchmarks.flow_shape [--json FILE] [--smoke]

Sizes of the released model (Perceiver IO, appendix H): 368 x 496 = 182,528 inputs of 64 content and
258 Fourier channels, 2,048 latents of 512 channels, 24 self-attends of 16 heads, and the inputs
once more as queries. What turns two frames into the 64 channels is left out: inputs are random.
Reported are the paths that were taken, the compiler's temporary memory, and the most memory that
the process ever held: Python, JAX, compilation, parameters, inputs and outputs counted too.
"""

import time

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from perceiver.byte_array import ByteArray, Segment
from perceiver.decoder import Decoder
from perceiver.encoder import Encoder
from perceiver.positions import LearnedTable, SeparableFourier
from perceiver.processor import Processor

from benchmarks import measure, table

FULL = {"dims": (368, 496), "latents": 2048, "channels": 512, "layers": 24, "heads": 16}
TINY = {"dims": (61, 67), "latents": 2048, "channels": 128, "layers": 2, "heads": 4}
CONTENT, BANDS = 64, 64
CASE = "flow-shaped model, own process"


def make(sizes: dict) -> tuple[hk.Transformed, list[str]]:
    """Returns the model, [B, H, W, 64] -> [B, H W, 2], and where it writes what paths it takes."""
    plans: list[str] = []

    def run(content):
        positions = SeparableFourier.of_grid(sizes["dims"], bands=BANDS)
        byte_array = ByteArray.of(Segment(content, positions, name="frames"))
        table = LearnedTable(size=sizes["latents"], channels=sizes["channels"], name="latents")()
        latents = jnp.broadcast_to(table[None], (content.shape[0], *table.shape))
        encoder = Encoder(heads=1, name="encoder")
        decoder = Decoder(heads=1, query_residual=False, out_channels=2, name="decoder")
        plans[:] = [
            f"encoder: {encoder.plan(latents, byte_array)}",
            f"decoder: {decoder.plan(byte_array, latents)}",
        ]
        latents = encoder(latents, byte_array)
        latents = Processor(layers=sizes["layers"], heads=sizes["heads"], name="processor")(latents)
        return decoder(byte_array, latents)

    return hk.without_apply_rng(hk.transform(run)), plans


def measure_forward(sizes: dict) -> dict:
    """Runs the model once and returns its figures."""
    model, plans = make(sizes)
    draw = np.random.default_rng(0)
    content = jnp.asarray(draw.standard_normal((1, *sizes["dims"], CONTENT), np.float32))
    params = jax.jit(model.init)(jax.random.key(0), content)
    program = measure.compile_program(model.apply, params, content)
    wall, cpu = time.perf_counter(), time.process_time()
    outputs = program()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "plans": plans,
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "outputs": outputs.shape,
        "finite": bool(jnp.isfinite(outputs).all()),
        "compile_s": program.seconds,
        "temp_mib": program.temp_mib,
        "wall_s": wall,
        "cpu_s": cpu,
        "resident_mib": measure.peak_resident_mib(),
    }


def main() -> None:
    """Prints the figures of one forward pass."""
    parser = table.parser(__doc__)
    options = parser.parse_args()
    report = table.Report(options)
    figures = measure_forward(TINY if options.smoke else FULL)
    print(*figures["plans"], sep="\n")
    print(f"{figures['parameters']:,} parameters, outputs {figures['outputs']}")
    if not figures["finite"]:
        raise ValueError("outputs are not finite")
    measured = ("wall_s", "cpu_s", "temp_mib", "resident_mib", "compile_s")
    report.add(
        table.Row(
            case=CASE, work="forward", form="auto", **{name: figures[name] for name in measured}
        )
    )
    report.write("flow_shape")


if __name__ == "__main__":
    main()
