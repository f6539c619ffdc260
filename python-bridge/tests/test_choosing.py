"""What tells the hidden states of one machine and one model from those of another."""

from importlib.metadata import version

import pytest
import tiny
import torch

from vivarium_bridge import choosing
from vivarium_bridge.choosing import cpu_model, space_identity
from vivarium_bridge.models import load_base


def test_a_4_bit_base_is_that_of_one_version_of_bitsandbytes(model_dir):
    cpu = torch.device("cpu")
    load = {name: load_base(model_dir, torch.bfloat16, cpu, in_4bit=name == "4bit") for name in ("", "4bit")}
    found = {name: space_identity(base, 1) for name, base in load.items()}
    assert found[""]["bitsandbytes"] is None
    assert found["4bit"]["bitsandbytes"] == version("bitsandbytes")


def test_another_processor_is_another_space(monkeypatch):
    here = space_identity(tiny.causal_lm(), 1)
    assert cpu_model() in here["device"]
    monkeypatch.setattr(choosing, "cpu_model", lambda: "Another Processor")
    there = space_identity(tiny.causal_lm(), 1)
    assert {name for name in here if here[name] != there[name]} == {"device"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Xeon(R) @ 2.00GHz\n\nmodel name\t: b", "Xeon(R) @ 2.00GHz"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", "of platform"),
        (None, "of platform"),
    ],
)
def test_the_name_of_the_processor(tmp_path, monkeypatch, text, name):
    monkeypatch.setattr("platform.processor", lambda: "of platform")
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert cpu_model(path) == name
