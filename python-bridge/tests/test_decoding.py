"""Jobs from JSON: what the driver sends is taken, anything else is refused with its path."""

import json
from dataclasses import asdict

import pytest
from conftest import LORA, RENDERING, TRAINING
from hypothesis import given
from hypothesis import strategies as st

from vivarium_bridge import _wire as wire
from vivarium_bridge.decoding import job_from_dict
from vivarium_bridge.errors import BridgeError

text = st.text(min_size=1, max_size=8)
count = st.integers(1, 2**53)
scalar = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | text
lora = st.builds(
    wire.LoraShape,
    r=count,
    lora_alpha=st.floats(0.1, 1e6) | st.integers(1, 99),
    use_rslora=st.booleans(),
    use_dora=st.booleans(),
    lora_dropout=st.floats(0, 0.9),
    target_modules=text | st.lists(text, min_size=1, max_size=3),
    layers_to_transform=st.none() | st.lists(st.integers(0, 99), min_size=1, max_size=3),
    rank_pattern=st.dictionaries(text, count, max_size=2),
    alpha_pattern=st.dictionaries(text, st.floats(0.1, 9), max_size=2),
)
runs = st.builds(
    wire.TrainRun,
    run_dir=text,
    dataset_file=text,
    eval_dataset_file=st.none() | text,
    kl_dataset_file=st.none() | text,
    chat_template_kwargs=st.dictionaries(text, scalar, max_size=3),
    rendering=st.just(RENDERING),
    lora=st.none() | lora,
    training=st.just(TRAINING),
)
jobs = st.builds(
    wire.TrainJob,
    base_model_dir=text,
    base_sha256=text,
    num_threads=count,
    prefix_cache=st.builds(wire.PrefixCache, enabled=st.booleans(), max_bytes=count, dir=text),
    runs=st.lists(runs, min_size=1, max_size=2),
) | st.builds(
    wire.SampleJob,
    base_gguf=text,
    adapter=st.none() | st.builds(wire.SampleJobAdapter, gguf=text, scale=st.floats(-9, 9)),
    blocks_file=text,
    sampler=st.builds(
        wire.Sampler,
        temperature=st.floats(0, 2),
        top_p=st.floats(0.1, 1),
        top_k=st.integers(0, 99),
        min_p=st.floats(0, 0.9),
        max_new_tokens=count,
    ),
    stop_token_ids=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    context_tokens=count,
    num_threads=count,
    gpu=st.booleans(),
)


def sent(job: wire.Job):
    return json.loads(json.dumps(asdict(job)))


def places(value, path=()):
    """Paths of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def parent_of(value, path):
    for key in path[:-1]:
        value = value[key]
    return value


FREE_KEYS = ("chat_template_kwargs", "rank_pattern", "alpha_pattern")


@given(jobs)
def test_a_job_survives_the_wire(job):
    assert job_from_dict(sent(job)) == job


@given(jobs, st.data())
def test_a_missing_key_is_named(job, data):
    value = sent(job)
    path = data.draw(
        st.sampled_from([p for p in places(value) if isinstance(p[-1], str) and not set(FREE_KEYS) & set(p[:-1])])
    )
    del parent_of(value, path)[path[-1]]
    with pytest.raises(BridgeError) as caught:
        job_from_dict(value)
    assert caught.value.code == "BAD_JOB"
    assert path[-1] in caught.value.message


@given(jobs, st.data())
def test_an_unknown_key_is_refused_at_any_depth(job, data):
    value = sent(job)
    objects = [(), *(p for p in places(value) if isinstance(parent_of(value, (*p, None)), dict))]
    path = data.draw(st.sampled_from([p for p in objects if not p or p[-1] not in FREE_KEYS]))
    parent_of(value, (*path, "surprise"))["surprise"] = 1
    with pytest.raises(BridgeError, match="unknown surprise"):
        job_from_dict(value)


@given(jobs, st.data())
def test_an_object_is_no_scalar_anywhere(job, data):
    value = sent(job)
    path = data.draw(st.sampled_from(list(places(value))))
    parent_of(value, path)[path[-1]] = [{}]
    with pytest.raises(BridgeError):
        job_from_dict(value)


JOB = wire.TrainJob(
    base_model_dir="m",
    base_sha256="b",
    num_threads=1,
    prefix_cache=wire.PrefixCache(enabled=True, max_bytes=1, dir="c"),
    runs=[
        wire.TrainRun(
            run_dir="r",
            dataset_file="d",
            eval_dataset_file=None,
            kl_dataset_file=None,
            chat_template_kwargs={"n": 1},
            rendering=RENDERING,
            lora=LORA,
            training=TRAINING,
        )
    ],
)
RUN = ("runs", 0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("num_threads",), True, "job.num_threads: expected int, got bool True"),
        (("num_threads",), 1.0, "job.num_threads: expected int, got float 1.0"),
        (
            (*RUN, "training", "learning_rate"),
            "1e-4",
            "job.runs[0].training.learning_rate: expected float, got str '1e-4'",
        ),
        (
            (*RUN, "training", "optim"),
            "adam",
            "job.runs[0].training.optim: expected 'adamw_torch' | 'adamw_8bit' | 'sgd', got str 'adam'",
        ),
        ((*RUN, "training", "max_length"), "x", "job.runs[0].training.max_length: expected int | null, got str 'x'"),
        (
            (*RUN, "lora", "layers_to_transform"),
            [0, None],
            "job.runs[0].lora.layers_to_transform[1]: expected int, got null",
        ),
        ((*RUN, "lora", "rank_pattern"), {"q": "8"}, "job.runs[0].lora.rank_pattern.q: expected int, got str '8'"),
        ((*RUN, "lora"), 1, "job.runs[0].lora: expected LoraShape | null, got int 1"),
        ((*RUN, "rendering"), None, "job.runs[0].rendering: expected Rendering, got null"),
        (("runs",), {}, "job.runs: expected list, got dict {}"),
    ],
)
def test_a_wrong_type_is_named_with_its_path(path, value, message):
    job = sent(JOB)
    parent_of(job, path)[path[-1]] = value
    with pytest.raises(BridgeError) as caught:
        job_from_dict(job)
    assert caught.value.message == message


def test_an_integer_stays_one():
    """A chat template would print 1.0 for 1 otherwise."""
    job = job_from_dict(sent(JOB))
    assert isinstance(job, wire.TrainJob)
    assert type(job.runs[0].chat_template_kwargs["n"]) is int


@pytest.mark.parametrize("value", [None, [], "train", {}, {"type": 1}])
def test_what_is_no_job(value):
    with pytest.raises(BridgeError, match=r"job\.type: expected one of train, merge, score, logprobs, sample"):
        job_from_dict(value)
