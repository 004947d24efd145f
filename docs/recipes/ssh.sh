#!/bin/bash
# Workers on machines that are reached by ssh, with the package and the data in place on each:
#   STORAGE='postgresql://me:$DB_PASSWORD@db/prune' STUDY=flowers DATA=/data/flowers docs/recipes/ssh.sh node1 node2
# Ctrl-C ends the connections and with them the workers, which hand back their trials. DB_PASSWORD is read on each
# machine, from ~/.pgpass or the environment of its login shell; it is not sent.
set -euo pipefail
: "${STORAGE:?a database URL}" "${STUDY:?the name of the study}" "${DATA:?where the data lie on the machines}"
[ "$#" -gt 0 ] || { echo "name the machines" >&2; exit 2; }
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
printf -v command '%q ' automl-prune worker --storage "$STORAGE" --study "$STUDY" --wait 3600 --set "data.root=$DATA"
for host in "$@"; do
    ssh -tt -o BatchMode=yes "$host" "bash -lc $(printf '%q' "exec $command")" </dev/null 2>&1 | sed -u "s/^/$host: /" &
done
wait
