#!/bin/bash
# {{hosts}} of a Cloud TPU {{tpu}}. The Cloud TPU API has v2 to v6e; TPU7x is
# reached through GKE alone (jaxmeta launch gke). Stops billing when it is done:
#   {{delete}}
set -euo pipefail
{{create}}
until state=$({{state}}) && [ "$state" = ACTIVE ]; do
  case "$state" in FAILED | SUSPENDING | SUSPENDED)
    echo "the request for {{tpu}} is $state; delete it as said above" >&2
    exit 1
  esac
  sleep 30
done
{{copy}}
{{install}}
# 42 says that a checkpoint was written before the machines were taken away: delete what
# is left of them (above) and start the same again, which goes on from it.
{{train}}
