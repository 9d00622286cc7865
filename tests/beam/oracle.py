"""Runs pipelines on the real Apache Beam, one after the other, in one process.

Reads a request a line on standard input and answers a line on standard output, both JSON:

    {"id": 1, "yaml": "…", "file": "/tmp/…/case.yaml", "variables": {"dir": "/tmp/…"},
     "captures": [{"name": "Sum", "line": 12, "output": ""}]}
    {"id": 1, "captures": [[row, …], …]}      the rows of each capture, in any order
    {"id": 1, "rejected": "…"}                Beam refuses to build the pipeline
    {"id": 1, "failed": "…"}                  it was built and failed

A row is {"row": value, "time": us, "window": null | [start us, end us], "pane": [first, last, timing, index, nonspeculative]}.
Values keep their types: numbers of Python's `int` stay numbers, everything that JSON has no type for is an object with one key
("f" float, "i" large int, "b" bytes, "t" instant in us, "r" row or mapping, "o" anything else).

A transform is found by its name (or type) and the line that it begins in, since the names inside a runner differ from those in
the file. Standard output belongs to the answers: whatever else prints is sent to standard error.
"""

import copy
import inspect
import io
import json
import logging
import sys
import types
import warnings

import apache_beam as beam
import numpy
import pandas
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import PaneInfoTiming
from apache_beam.yaml import yaml_transform

CAPTURED = []


def remember_signatures():
    """Looks at each function once: Beam inspects all methods of every DoFn several times, a quarter of a pipeline's time."""
    known, signature = {}, inspect.signature

    def remembered(func, **options):
        key = (getattr(func, "__func__", func), inspect.ismethod(func))
        if options or not isinstance(key[0], types.FunctionType):
            return signature(func, **options)
        if key not in known:
            known[key] = signature(func)
        return known[key]

    inspect.signature = remembered


def remember_options():
    """Makes the parser of each class of options once, not at every look at an option, another quarter."""
    known, init = {}, PipelineOptions.__init__

    def remembering(self, flags=None, **given):
        if flags is None or len(flags) > 0:
            return init(self, flags, **given)
        if type(self) not in known:
            init(self, flags)
            known[type(self)] = copy.deepcopy(self._visible_options)
        self._flags = flags
        self._visible_options = copy.deepcopy(known[type(self)])
        self._all_options = given
        for name in self._visible_option_list():
            given.setdefault(name, getattr(self._visible_options, name))

    PipelineOptions.__init__ = remembering


def encode(value):
    """A value with its type, as JSON."""
    if isinstance(value, numpy.generic):
        value = value.item()
    if value is None or value is pandas.NA:
        return None
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else {"i": str(value)}
    if isinstance(value, float):
        return {"f": repr(value)}
    if isinstance(value, bytes):
        return {"b": value.hex()}
    if isinstance(value, Timestamp):
        return {"t": int(value.micros)}
    if hasattr(value, "_asdict"):
        return {"r": {str(key): encode(inner) for key, inner in value._asdict().items()}}
    if isinstance(value, dict):
        return {"r": {str(key): encode(inner) for key, inner in value.items()}}
    if isinstance(value, (list, tuple, set, frozenset)) or hasattr(value, "__iter__"):
        return [encode(inner) for inner in value]
    return {"o": repr(value)}


class Nothing:
    """What `Capture` gives out. Said, since Beam would look through all of `encode` to find out."""


class Capture(beam.DoFn):
    """Notes each row with what Beam knows of it."""

    def __init__(self, number):
        self.number = number

    def process(self, row, window=beam.DoFn.WindowParam, time=beam.DoFn.TimestampParam, pane=beam.DoFn.PaneInfoParam):
        span = None if isinstance(window, GlobalWindow) else [int(window.start.micros), int(window.end.micros)]
        timing = PaneInfoTiming.to_string(pane.timing)
        CAPTURED[self.number].append({
            "row": encode(row),
            "time": int(time.micros),
            "window": span,
            "pane": [pane.is_first, pane.is_last, timing, pane.index, pane.nonspeculative_index],
        })


class Recorder:
    """Remembers the outputs of every transform of the file while Beam expands it."""

    def __init__(self):
        self.outputs = {}
        expand = yaml_transform.expand_transform

        def recording(spec, scope):
            outputs = expand(spec, scope)
            # Windowing on a transform wraps it into a composite of the same line, which comes last and counts.
            for name in {spec.get("name"), spec["type"], spec["type"].split("-")[0]}:
                self.outputs[name, spec.get("__line__")] = outputs
            return outputs

        yaml_transform.expand_transform = recording

    def find(self, wanted):
        key = (wanted["name"], wanted["line"])
        # Lines inside of a provider's body are counted from its own beginning.
        named = [outputs for (name, _), outputs in self.outputs.items() if name == wanted["name"]]
        if key not in self.outputs and len(named) != 1:
            raise KeyError(f"no transform {key}; there are {sorted(map(str, self.outputs))}")
        outputs, output = self.outputs.get(key) or named[0], wanted["output"]
        if output:
            return outputs[output]
        if len(outputs) == 1:
            return next(iter(outputs.values()))
        return next(outputs[main] for main in ("good", "output", "out") if main in outputs)


def short(error):
    """The end of the chain of causes says the most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: " + " | ".join(lines[:3])[:600]


def answer(request, recorder):
    recorder.outputs.clear()
    CAPTURED[:] = [[] for _ in request["captures"]]
    try:
        folder = request["file"].rsplit("/", 1)[0]
        text = yaml_transform.expand_jinja(request["yaml"], request["variables"], [folder])
        spec = yaml.load(text, Loader=yaml_transform.SafeLineLoader)
        options = yaml_transform.SafeLineLoader.strip_metadata(spec.get("options", {}))
        pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([], pickle_library="cloudpickle", **options))
        yaml_transform.expand_pipeline(pipeline, spec, pipeline_path=request["file"])
        for number, wanted in enumerate(request["captures"]):
            recorder.find(wanted) | f"Capture {number}" >> beam.ParDo(Capture(number)).with_output_types(Nothing)
    except Exception as error:  # pylint: disable=broad-except
        return {"rejected": short(error)}
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:  # pylint: disable=broad-except
        return {"failed": short(error)}
    return {"captures": CAPTURED}


def main():
    answers, sys.stdout = sys.stdout, sys.stderr
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    remember_signatures()
    remember_options()
    recorder = Recorder()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        hidden, sys.stderr = sys.stderr, io.StringIO()
        try:
            result = answer(request, recorder)
        finally:
            sys.stderr = hidden
        print(json.dumps({"id": request["id"], **result}), file=answers, flush=True)


if __name__ == "__main__":
    # As a module, so that Beam pickles `Capture` by name and rows land in this process's list.
    import oracle

    oracle.main()
