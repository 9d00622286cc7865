"""Runs streams through Apache Beam's BundleBasedDirectRunner: one JSON object a line in, one out.

    {"transcripts": [PATH, ...]}    -> {"transcripts": [[NAME, DOCUMENT, ...], ...]}; "beam" stands for Beam's own file
    {"strategy": ..., "events": …}  -> {"panes": [...], "watermarks": [...]}

Times are microseconds. Each pane has the number of the event that led to it: the runner takes the next event when all is
quiet. `watermarks` are what the grouping sees at each element: [event, input, output]. Nothing of Beam is changed: the two
wrappers below only look.
"""
import json
import logging
import os
import sys
import tempfile

import apache_beam as beam
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct import transform_evaluator
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms import trigger, window
from apache_beam.utils.timestamp import Duration, Timestamp

EVENT = [0]
PANES = []
WATERMARKS = []


def look():
  """Counts events as they are taken and notes the watermarks that elements meet."""
  evaluator = transform_evaluator._TestStreamEvaluator
  take, elements = evaluator.process_element, trigger.GeneralTriggerDriver.process_elements

  def counted(self, element):
    EVENT[0] += 1
    return take(self, element)

  def noted(self, state, values, output_watermark, input_watermark):
    WATERMARKS.append([EVENT[0] - 1, input_watermark.micros, output_watermark.micros])
    return elements(self, state, values, output_watermark, input_watermark)

  evaluator.process_element = counted
  trigger.GeneralTriggerDriver.process_elements = noted


class Collect(beam.DoFn):
  def process(self, row, w=beam.DoFn.WindowParam, t=beam.DoFn.TimestampParam, p=beam.DoFn.PaneInfoParam):
    key, values = row
    timing = ['EARLY', 'ON_TIME', 'LATE', 'UNKNOWN'][p.timing]
    PANES.append([
        EVENT[0] - 1, key, w.start.micros, w.end.micros, t.micros, timing, p.is_first, p.is_last, p.index,
        p.nonspeculative_index, sorted(values)])


def window_fn(spec):
  kind, *sizes = spec
  sizes = [Duration(micros=size) for size in sizes]
  return {
      'global': window.GlobalWindows, 'fixed': window.FixedWindows, 'sliding': window.SlidingWindows,
      'sessions': window.Sessions
  }[kind](*sizes)


def trigger_fn(spec):
  kind, *parts = spec
  if kind == 'count':
    return trigger.AfterCount(*parts)
  if kind == 'processing_time':
    return trigger.AfterProcessingTime(parts[0] // 1_000_000)
  parts = [part and trigger_fn(part) for part in parts]
  return {
      'default': trigger.DefaultTrigger, 'never': trigger._Never, 'always': trigger.Always, 'end': trigger.AfterWatermark,
      'repeatedly': trigger.Repeatedly, 'any': trigger.AfterAny, 'all': trigger.AfterAll, 'each': trigger.AfterEach,
      'or_finally': trigger.OrFinally
  }[kind](*parts)


def run(strategy, events):
  EVENT[0], PANES[:], WATERMARKS[:] = 0, [], []
  stream = TestStream()
  for kind, *event in events:
    if kind == 'row':
      key, value, time = event
      stream.add_elements([window.TimestampedValue((key, value), Timestamp(micros=time))])
    elif kind == 'watermark':
      stream.advance_watermark_to(Timestamp(micros=event[0]))
    else:
      stream.advance_processing_time(Duration(micros=event[0]))
  p = beam.Pipeline(runner=BundleBasedDirectRunner(), options=PipelineOptions(['--streaming', '--allow_unsafe_triggers']))
  _ = (
      p | stream
      | beam.WindowInto(
          window_fn(strategy['window']), trigger=trigger_fn(strategy['trigger']),
          accumulation_mode=getattr(trigger.AccumulationMode, strategy['accumulation']),
          timestamp_combiner=getattr(window.TimestampCombiner, strategy['timestamp_combiner']),
          allowed_lateness=Duration(micros=strategy['allowed_lateness']))
      | beam.GroupByKey() | beam.ParDo(Collect()))
  try:
    p.run(test_runner_api=False).wait_until_finish()
    stalled = False
  except TypeError as error:
    # The runner cannot end while a window holds the watermark, which no closing releases. It says so by raising a tuple.
    if 'must derive from BaseException' not in str(error):
      raise
    stalled = True
  return {'panes': PANES, 'watermarks': WATERMARKS, 'stalled': stalled}


def transcripts(paths):
  beams = os.path.join(os.path.dirname(beam.__file__), 'testing/data/trigger_transcripts.yaml')
  documents = []
  for path in paths:
    with open(beams if path == 'beam' else path) as file:
      documents.extend(yaml.load_all(file, Loader=yaml.SafeLoader))
  return {'transcripts': documents}


def main():
  logging.getLogger().setLevel(logging.CRITICAL)
  look()
  out = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  # Beam leaves a folder behind for each pipeline that stalls.
  with tempfile.TemporaryDirectory() as folder:
    tempfile.tempdir = folder
    for line in sys.stdin:
      out.write(json.dumps(answer(json.loads(line))) + '\n')
      out.flush()


def answer(request):
  try:
    return transcripts(request['transcripts']) if 'transcripts' in request else run(request['strategy'], request['events'])
  except Exception as error:  # pylint: disable=broad-except
    return {'error': '%s: %s' % (type(error).__name__, error)}


if __name__ == '__main__':
  # By its own name, so that what is pickled by reference is found again.
  sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
  import oracle
  oracle.main()
