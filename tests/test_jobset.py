"""The file for GKE is a JobSet, as far as one can tell without a cluster."""

import json
import pathlib

import jsonschema
import pytest
import yaml

from kaleido_jax import train

FILE = pathlib.Path(__file__).parent.parent / 'launch' / 'gke.yaml'


# As much of JobSet and of what it contains as the file uses: a name that is not
# here is a typing error, or has to be looked up and added.
def record(required: str, **fields):
  return {
    'type': 'object',
    'properties': fields,
    'required': required.split(),
    'additionalProperties': False,
  }


def list_of(item):
  return {'type': 'array', 'items': item, 'minItems': 1}


TEXT, NUMBER = {'type': 'string'}, {'type': 'integer', 'minimum': 0}
TEXTS = {'type': 'object', 'additionalProperties': TEXT}
AMOUNTS = {'type': 'object', 'additionalProperties': NUMBER}
CONTAINER = record(
  'name image command resources',
  name=TEXT,
  image=TEXT,
  workingDir=TEXT,
  command=list_of(TEXT),
  args=list_of(TEXT),
  env=list_of(record('name value', name=TEXT, value=TEXT)),
  ports=list_of(record('containerPort', containerPort=NUMBER)),
  resources=record('limits', requests=AMOUNTS, limits=AMOUNTS),
  volumeMounts=list_of(record('name mountPath', name=TEXT, mountPath=TEXT)),
)
POD = record(
  'containers restartPolicy',
  restartPolicy={'enum': ['Never', 'OnFailure']},
  terminationGracePeriodSeconds=NUMBER,
  nodeSelector=TEXTS,
  containers=list_of(CONTAINER),
  volumes=list_of(
    record(
      'name',
      name=TEXT,
      persistentVolumeClaim=record('claimName', claimName=TEXT),
      emptyDir=record('', medium={'enum': ['', 'Memory']}),
    )
  ),
)
POD_RULE = record(
  'action',
  action={'enum': ['FailJob', 'Ignore', 'Count', 'FailIndex']},
  onExitCodes=record(
    'operator values',
    containerName=TEXT,
    operator={'enum': ['In', 'NotIn']},
    values=list_of(NUMBER),
  ),
  onPodConditions=list_of(record('type', type=TEXT, status=TEXT)),
)
JOB = record(
  'template',
  parallelism=NUMBER,
  completions=NUMBER,
  completionMode={'enum': ['Indexed', 'NonIndexed']},
  backoffLimit=NUMBER,
  podFailurePolicy=record('rules', rules=list_of(POD_RULE)),
  template=record('spec', spec=POD),
)
ACTIONS = ('FailJobSet', 'RestartJobSet', 'RestartJobSetAndIgnoreMaxRestarts')
FAILURE = record(
  '',
  maxRestarts=NUMBER,
  rules=list_of(
    record(
      'name action',
      name={
        'type': 'string',
        'pattern': '^[A-Za-z]([A-Za-z0-9_,:-]*[A-Za-z0-9_])?$',
      },
      action={'enum': list(ACTIONS)},
      onJobFailureReasons=list_of(
        {
          'enum': [
            'BackoffLimitExceeded',
            'DeadlineExceeded',
            'PodFailurePolicy',
          ]
        }
      ),
    )
  ),
)
SLICE = record(
  'name template',
  name=TEXT,
  replicas=NUMBER,
  template=record('spec', spec=JOB),
)
JOBSET = record(
  'apiVersion kind metadata spec',
  apiVersion={'const': 'jobset.x-k8s.io/v1alpha2'},
  kind={'const': 'JobSet'},
  metadata=record('name', name=TEXT, annotations=TEXTS),
  spec=record(
    'replicatedJobs', failurePolicy=FAILURE, replicatedJobs=list_of(SLICE)
  ),
)


def test_the_jobset_is_one_and_its_numbers_agree():
  jobset = yaml.safe_load(FILE.read_text())
  jsonschema.Draft202012Validator(JOBSET).validate(jobset)
  job = jobset['spec']['replicatedJobs'][0]['template']['spec']
  pod = job['template']['spec']
  (container,) = pod['containers']
  chips = container['resources']['limits']['google.com/tpu']
  topology = pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
  assert eval(topology.replace('x', '*')) == chips * job['parallelism']
  assert job['completions'] == job['parallelism']
  # Any failure is a failure of all: half a run waits for the other half.
  assert job['backoffLimit'] == 0 and pod['restartPolicy'] == 'Never'
  codes = job['podFailurePolicy']['rules'][0]['onExitCodes']
  assert codes['values'] == [train.TO_BE_CONTINUED]
  assert codes['containerName'] == container['name']
  assert container['command'] == ['python3', '-m', 'kaleido_jax.main']
  mounts = {m['mountPath']: m['name'] for m in container['volumeMounts']}
  (memory,) = (v for v in pod['volumes'] if 'emptyDir' in v)
  assert memory['name'] == mounts['/dev/shm']
  assert memory['emptyDir'] == {'medium': 'Memory'}
  mounted = container['volumeMounts'][0]['mountPath']
  assert any(a.startswith(f'--workdir={mounted}/') for a in container['args'])
  broken = json.loads(json.dumps(jobset).replace('backoffLimit', 'backofLimit'))
  with pytest.raises(jsonschema.ValidationError, match='backofLimit'):
    jsonschema.Draft202012Validator(JOBSET).validate(broken)
