import pytest

from configs import digits
from train import command


def test_a_config_is_read_with_its_changes():
    c = command.read(
        ["--config=configs/digits.py:smoke", "--config.train.steps=7", "--config.placement=single"]
    )
    assert (c.train.steps, c.optim.steps, c.placement, c.task) == (7, 0, "single", "classification")
    assert c.is_locked


def test_a_config_at_hand_is_changed_in_a_copy():
    mine = digits.get_config("smoke")
    changed = command.read(["--config.data.eval_batch_size=97"], mine)
    assert changed.data.eval_batch_size == 97
    assert mine.data.eval_batch_size != 97
    assert command.read([], mine).to_dict() == mine.to_dict()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config=configs/nothing.py"],
            r"no such file; available are configs/audioset\.py, configs/common\.py, ",
        ),
        (["--config=configs/digits.py:forier"], "unknown config variant 'forier'"),
        (
            ["--config=configs/digits.py", "--config.optim.warmup_step=3"],
            "no field 'optim.warmup_step'; did you mean optim.warmup_steps",
        ),
        (["--config=configs/digits.py", "--config.train.steps=many"], "many"),
    ],
)
def test_what_cannot_be_read_is_named(words, message):
    with pytest.raises(ValueError, match=message):
        command.read(words)


def test_fields_of_a_config_at_hand_are_checked_too():
    with pytest.raises(ValueError, match=r"no field 'data\.sourc'; did you mean data.source"):
        command.read(["--config.data.sourc=digits"], digits.get_config("smoke"))
