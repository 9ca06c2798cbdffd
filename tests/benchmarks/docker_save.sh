#!/usr/bin/env bash
# docker save, scp, docker load: the recipe without Ansible, all nodes at once.
# docker_save.sh SSH-CONFIG BASTION "NODE..." DIRECTORY-ON-HOSTS ARCHIVE-HERE IMAGE
set -euo pipefail
config=$1 bastion=$2 directory=$4 archive=$5 image=$6
read -ra nodes <<<"$3"

on() { ssh -F "$config" "$1" "$2"; }

on "$bastion" "docker pull --quiet $image && docker save -o $directory/plain.tar $image"
scp -q -F "$config" "$bastion:$directory/plain.tar" "$archive"
loads=()
for node in "${nodes[@]}"; do
    {
        scp -q -F "$config" "$archive" "$node:$directory/plain.tar"
        on "$node" "docker load --quiet -i $directory/plain.tar"
    } &
    loads+=($!)
done
for load in "${loads[@]}"; do wait "$load"; done
