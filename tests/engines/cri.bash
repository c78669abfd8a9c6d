# SPDX-License-Identifier: Apache-2.0
# Pods and their containers, by the calls that kubelet makes to containerd.
# shellcheck disable=SC2034,SC2153  # The test files read what is set here; WORK is of ../integration/helpers.

IMAGE=tns.test/tns:latest
export CRI_SOCKET=/run/containerd/containerd.sock CRI_API=$TNS_TOOLS/cri.protoset
export CONTAINERD_NAMESPACE=k8s.io CONTAINERD_SNAPSHOTTER=native

cri() { /tns/engines/cri "$@"; }
# What of a pod's configuration kubelet always says, too. The host's network, so that nothing of CNI is needed.
NAMESPACES='{security_context: {namespace_options: {network: "NODE", pid: "CONTAINER"}}}'
pod_config() { # pod_config NAME [ANNOTATIONS]
  jq -nc --arg name "$1" --arg logs "$WORK/logs" --argjson annotations "${2:-"{}"}" \
    "{metadata: {\$name, uid: \$name, namespace: \"tests\"}, log_directory: \$logs, \$annotations, linux: $NAMESPACES}"
}
container_config() { # container_config NAME [ANNOTATIONS [IMAGE [COMMAND]]]
  jq -nc --arg name "$1" --arg command "${4:-$FIRST}" --argjson annotations "${2:-"{}"}" --arg image "${3:-$IMAGE}" \
    "{metadata: {\$name}, image: {\$image}, command: [\"sh\", \"-c\", \$command], log_path: \"\(\$name).log\", \$annotations,
      linux: $NAMESPACES}"
}

# A pod NAME, with a runtime handler of that name or what `bare` and `shim` stand for.
run_pod() { # run_pod bare|shim|HANDLER NAME [ANNOTATIONS]
  local handler=$1
  [[ $handler != shim ]] || handler=tns-shim
  pod_config "$2" "${3:-}" >"$WORK/$2.config"
  cri RunPodSandbox "{\"runtime_handler\": \"$handler\", \"config\": $(<"$WORK/$2.config")}" >"$WORK/$2.pod" || return
  jq -r .podSandboxId "$WORK/$2.pod" >"$WORK/$2.id"
}
create() { # create POD NAME [ANNOTATIONS [IMAGE [COMMAND]]]
  cri CreateContainer "{\"pod_sandbox_id\": \"$(<"$WORK/$1.id")\", \"sandbox_config\": $(<"$WORK/$1.config"),
    \"config\": $(container_config "${@:2}")}" >"$WORK/$2.container" || return
  jq -r .containerId "$WORK/$2.container" >"$WORK/$2.id"
}
of() { echo "{\"container_id\": \"$(<"$WORK/$1.id")\"}"; }

start() { # start bare|shim|HANDLER NAME [ANNOTATIONS OF ITS POD]
  run_pod "$1" "pod-$2" "${3:-}" && create "pod-$2" "$2" && go "$2"
}
# To where PID 1 has its child.
go() { cri StartContainer "$(of "$1")" >/dev/null && wait_for pgrep --parent "$(pid_of "$1")"; }
# As containerd knows it from the runtime.
pid_of() { cat "/run/containerd/io.containerd.runtime.v2.task/k8s.io/$(<"$WORK/$1.id")/init.pid"; }
state_of() { cri ContainerStatus "$(of "$1")" | jq -r .status.state; }
remove() {
  cri StopContainer "$(of "$1")" >/dev/null
  cri RemoveContainer "$(of "$1")" >/dev/null
}
# The pod was made with or without the shim: that holds for what is done in it.
in_container() { # in_container bare|shim NAME COMMAND...
  local answer
  answer=$(cri ExecSync "$(of "$2" | jq -c '. + {cmd: $ARGS.positional, timeout: 30}' --args -- "${@:3}")") || return
  jq -j '.stdout // "" | @base64d' <<<"$answer"
  jq -j '.stderr // "" | @base64d' <<<"$answer" >&2
  return "$(jq '.exitCode // 0' <<<"$answer")"
}
stream() { cri stream "$(<"$WORK/$1.id")" "${@:2}"; }
remove_all() {
  local id
  for id in $(cri ListPodSandbox | jq -r '.items[]?.id'); do
    cri StopPodSandbox "{\"pod_sandbox_id\": \"$id\"}"
    cri RemovePodSandbox "{\"pod_sandbox_id\": \"$id\"}"
  done
}

# As an image that containerd has by itself: a restore asks its registry for it by digest, although it is here.
load_image() {
  local type digest
  make_image "$BATS_FILE_TMPDIR/image.tar" "$IMAGE"
  ctr image import --no-unpack "$BATS_FILE_TMPDIR/image.tar" >/dev/null
  read -r _ type digest _ < <(ctr image list | grep "^$IMAGE ")
  ctr image tag "$IMAGE" "localhost:5000/tns@$digest" >/dev/null
  echo "$type $(ctr content get "$digest" | wc -c)"
}

# The version of the configuration that this containerd writes itself.
own_version() { containerd config default | awk '$1 == "version" { print $3; exit }'; }
