#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Which namespaces containers get through the shim. Each choice of absent, new and joined by path for the pid, network, ipc, uts, cgroup
# and user namespace is tried, and must give what the runtime alone gives, which is asked wherever that is not just what was listed.
#
#   namespaces.bash create|run|hook|restore absent|new|joined
#
# create: all 243 choices with this pid namespace. run (and then exec) and hook: 9 of them; with those of the other pid namespaces they
# hold each choice for pid, cgroup and user, and each for any two. restore (and then exec): 34 of those that CRIU might take. Prints a line
# for each difference, and at the end how many were accepted and how many differ. The environment says what is tested: SHIM, TNSCTL,
# TNS_RUNTIME, STATE, ROOTFS, WORK.
set -uo pipefail

kinds=(pid network ipc uts cgroup user)
links=(/ns/pid /ns/net /ns/ipc /ns/uts /ns/cgroup /ns/user /ns/mnt)

# A process in a namespace of its own of each kind but mount, with --user also of user: those that are joined. Its pid in `holder`.
hold() { # hold [--user]
  unshare "$@" --pid --net --ipc --uts --cgroup --fork --kill-child -- sleep 1000 >/dev/null 2>&1 3>&- &
  for _ in {1..100}; do
    holder=
    read -r holder _ <"/proc/$!/task/$!/children"
    [[ -z $holder || $(readlink "/proc/$holder/ns/pid") == "${host[0]}" ]] || break
    sleep 0.05
  done
  if (($#)); then
    echo 0 0 65536 >"/proc/$holder/uid_map"
    echo 0 0 65536 >"/proc/$holder/gid_map"
  fi
}

# $bundle/config.json for the choice in `letters`, such as a n j a a n.
write_config() {
  local index list='{"type":"mount"}' mappings='' holder=$holder_outside proc='{"destination":"/proc","type":"proc","source":"proc"}'
  if [[ ${letters[5]} == j ]]; then holder=$holder_inside; fi
  for index in "${!kinds[@]}"; do
    case ${letters[index]} in
      n) list+=",{\"type\":\"${kinds[index]}\"}" ;;
      j) list+=",{\"type\":\"${kinds[index]}\",\"path\":\"/proc/$holder${links[index]}\"}" ;;
    esac
  done
  if [[ ${letters[5]} != a ]]; then
    mappings='"uidMappings":[{"containerID":0,"hostID":0,"size":65536}],"gidMappings":[{"containerID":0,"hostID":0,"size":65536}],'
    # Only who owns the pid namespace may mount a procfs for it; engines give such a container the host's.
    [[ ${letters[0]} == n ]] || proc='{"destination":"/proc","type":"bind","source":"/proc","options":["rbind"]}'
  fi
  config="{\"ociVersion\":\"1.0.2\",\"process\":{\"user\":{\"uid\":0,\"gid\":0},\"args\":[\"/bin/tail\",\"-f\",\"/dev/null\"],
    \"env\":[\"PATH=/bin\"],\"cwd\":\"/\"},\"root\":{\"path\":\"$ROOTFS\"},
    \"mounts\":[$proc,{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\"}],
    \"linux\":{$mappings\"namespaces\":[$list]}}"
  echo "$config" >"$bundle/config.json"
}

# Adds to `result` what each of the namespaces on standard input is: the host's, new, or the joined one, and last the mount namespace.
classify() {
  local found index joined=("${outside[@]}")
  if [[ ${letters[5]} == j ]]; then joined=("${inside[@]}"); fi
  mapfile -t found
  for index in "${!found[@]}"; do
    case ${found[index]} in
      "${host[index]:-}") result+=a ;;
      "${joined[index]:-}") result+=j ;;
      *) result+=n ;;
    esac
  done
}

# Starts a container of the choice, and leaves in `result` what it got; nothing if it does not start. What was said is in $WORK/said.
try() { # try PROGRAM
  local pid='' id=m$((++tried))
  result=
  rm -rf "$WORK/pid" "$WORK/image" "$WORK/said"
  mkdir "$WORK/image"
  start "$1" "$id" </dev/null >/dev/null 2>&1 && pid=$(<"$WORK/pid") && classify < <(readlink "${links[@]/#//proc/$pid}")
  if [[ -n $result && $verb == r* ]]; then
    result+=/
    # A busybox readlink takes one name.
    classify < <("$1" --root "$STATE" exec "$id" sh -c "for link in ${links[*]/#//proc/self}; do readlink \$link; done" 2>&1)
  fi
  [[ -z $pid ]] || kill -KILL "$pid"
  "$TNS_RUNTIME" --root "$STATE" delete --force "$id" >/dev/null 2>&1
}

start() { # start PROGRAM ID
  local first program=("$1" --root "$STATE" --log "$WORK/said") images=(--image-path "$WORK/image" --work-path "$WORK/image")
  if [[ $verb == create || $verb == hook ]]; then
    "${program[@]}" create --bundle "$bundle" --pid-file "$WORK/pid" "$2"
    return
  fi
  "${program[@]}" run --detach --bundle "$bundle" --pid-file "$WORK/pid" "$2" || return
  if [[ $verb == restore ]]; then
    first=$(<"$WORK/pid")
    rm "$WORK/pid"
    "${program[@]}" checkpoint "${images[@]}" "$2" || return
    # Without a pid namespace of the container's own its process gets its number back, and whoever has to may not have waited for it yet.
    for _ in {1..1000}; do [[ -d /proc/$first ]] || break; sleep 0.01; done
    "${program[@]}" restore --detach --bundle "$bundle" "${images[@]}" --pid-file "$WORK/pid" "$2"
  fi
}

# What the runtime alone makes of it.
alone() {
  echo "$config" >"$bundle/config.json"
  try "$TNS_RUNTIME"
  bare=$result
}

compare() {
  local with bare said
  if [[ $verb == hook ]]; then
    "$TNSCTL" hook precreate --runtime "$TNS_RUNTIME" <"$bundle/config.json" >"$WORK/hooked" 2>/dev/null && mv "$WORK/hooked" "$bundle/config.json"
    try "$TNS_RUNTIME"
  else
    try "$SHIM"
  fi
  with=$result
  said=$(tail -n 1 "$WORK/said")
  ((++all))
  if [[ $with == "$wanted" ]]; then
    ((++accepted))
    return
  fi
  alone
  [[ -z $bare ]] || ((++accepted))
  if [[ $with != "$bare" ]]; then
    ((++differ))
    echo "${kinds[*]}: ${letters[*]}: with the shim ${with:-refused}, without ${bare:-refused} $said"
  fi
}

chosen() {
  case $verb:${choice[user]} in
    create:?) true ;;
    restore:a) ((cgroup == (network + ipc + uts) % 2)) ;;
    # CRIU takes no namespace that does not belong to the user namespace.
    restore:n) ((network < 2 && ipc < 2 && uts == ipc && cgroup == 0)) ;;
    restore:j) ((network == ipc && ipc == uts && cgroup == 0)) ;;
    *) ((network == (pid + user) % 3 && ipc == (pid + cgroup) % 3 && uts == (user + cgroup) % 3)) ;;
  esac
}

verb=$1
bundle=$WORK/matrix
mkdir -p "$bundle"
# unshare --fork takes no gentler signal.
trap 'kill -KILL $(jobs -p)' EXIT
mapfile -t host < <(readlink "${links[@]/#//proc/self}")
hold
holder_outside=$holder
mapfile -t outside < <(readlink "${links[@]/#//proc/$holder}")
hold --user
holder_inside=$holder
mapfile -t inside < <(readlink "${links[@]/#//proc/$holder}")

all=0 tried=0 accepted=0 differ=0
choice=(a n j)
case $2 in absent) pid=0 ;; new) pid=1 ;; joined) pid=2 ;; esac
for rest in {0,1,2}' '{0,1,2}' '{0,1,2}' '{0,1,2}' '{0,1,2}; do
  read -r network ipc uts cgroup user <<<"$rest"
  chosen || continue
  letters=("${choice[pid]}" "${choice[network]}" "${choice[ipc]}" "${choice[uts]}" "${choice[cgroup]}" "${choice[user]}")
  printf -v wanted %s "${letters[@]}" n
  if [[ $verb == r* ]]; then wanted=$wanted/$wanted; fi
  write_config
  compare
done
echo "$verb, pid namespace $2: $accepted of $all combinations accepted, $differ differ"
((differ == 0))
