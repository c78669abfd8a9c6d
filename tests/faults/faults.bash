# SPDX-License-Identifier: Apache-2.0
# What the tests of faults share: the fault itself, by strace, and what must be true afterwards.

load ../integration/helpers

# What fails here is not to be tried again.
# shellcheck disable=SC2034
BATS_TEST_RETRIES=0

# 1 tries every system call, as `make stress` does; 5 every fifth, and besides all that change something.
STEP=${TNS_STEP:-5}

tnsctl() { "$TNS_BIN/tnsctl" "$@"; }

# The system calls that CALL makes itself, as `NAME NUMBER`: which call of that name it is, which is how strace counts. They
# end where it becomes the runtime, and begin behind its own start.
list_calls() {
  prepare
  strace -o "$WORK/trace" "${CALL[@]}" </dev/null >/dev/null 2>&1
  clear
  awk -F '(' 'NR > 1 && /^[a-z0-9_]+\(/ { print $1, ++count[$1] } NR > 1 && $1 == "execve" { exit }' "$WORK/trace"
}

# Runs CALL, with something else happening at one of its system calls: `signal=KILL` comes before the call is done,
# `error=EIO` instead of it. strace follows only the process itself, not what it starts. INJECTED becomes its exit code.
inject() { # inject WHAT NAME NUMBER
  INJECTED=0
  # The shell tells of a child that was killed, on its own standard error.
  {
    strace -o "$WORK/trace" --inject="$2:$1:when=$3" "${CALL[@]}" </dev/null >"$WORK/printed" 2>&1 || INJECTED=$?
  } 2>/dev/null
}

# Whether it was still the program that was called, and not the runtime, which is none of ours.
was_killed() { grep -q '^+++ killed by SIGKILL' "$WORK/trace" && (($(grep -c '^execve(.* = 0$' "$WORK/trace") < 2)); }

# The system call that was the last.
last_call() { grep -v '^+++' "$WORK/trace" | tail -n 1 | cut -c 1-200; }

# What there is but files: orphans (of which process 1 is the parent), mounts, namespaces, control groups.
present() {
  tr ' ' '\n' </proc/1/task/1/children | sort -n
  cut -d ' ' -f 5- /proc/self/mountinfo
  readlink /proc/[0-9]*/ns/{mnt,pid,time} 2>/dev/null | sort -u
  find /sys/fs/cgroup -type d | sort
}

# Files under a temporary name.
find_temporary() { find "$BUNDLE" "$WORK"/image* /run/tns-shim -name '.?*' "$@" 2>/dev/null || true; }

# What was there before is there, and nothing else. A process that has been killed takes a moment to go.
nothing_is_left() {
  local now
  for _ in {1..30}; do
    now=$(present)
    [[ $now != "$BASE" ]] || break
    sleep 0.1
  done
  [[ $now == "$BASE" ]] || fail "left or gone: $(diff <(echo "$BASE") <(echo "$now"))" || return
  is "$(find_temporary)" ""
}

# Whether it is one of those to try: a call that changes something, the one behind it, or every STEPth.
is_chosen() { # is_chosen INDEX, in `calls`
  local change='^(write|rename|link|unlink|mkdir|fsync|fdatasync|fchmod|fchown|mount|umount|unshare|setns)'
  (($1 % STEP == 0)) || [[ ${calls[$1]} =~ $change ]] || { (($1 > 0)) && [[ ${calls[$1 - 1]} =~ $change ]]; }
}

# What is present once that does not change any more: what a call before this has ended may take its time to go.
settled() {
  local now before=
  for _ in {1..25}; do
    now=$(present)
    if [[ $now == "$before" ]]; then break; fi
    before=$now
    sleep 0.4
  done
  echo "$now"
}

# Kills CALL at each of its system calls. Before each: `prepare`. After each: `whole`, what must be true at once; then
# `again`, which must succeed; then nothing is left. `clear` takes away what a call that was not killed has made. All of
# these report by their exit code.
sweep() { # sweep NAME
  local calls name number points=0 missed=0 index wrong=()
  mapfile -t calls < <(list_calls)
  BASE=$(settled)
  for index in "${!calls[@]}"; do
    is_chosen "$index" || continue
    read -r name number <<<"${calls[index]}"
    prepare
    inject signal=KILL "$name" "$number"
    # The number of some calls hangs on where in memory the kernel puts the program.
    if ! was_killed; then
      ((++missed))
      clear
      continue
    fi
    ((++points))
    if ! { whole && again && nothing_is_left; } >"$WORK/why" 2>&1; then
      wrong+=("killed before $(last_call): $(cut -c 1-300 "$WORK/why" | head -n 20)")
      clear
      find_temporary -delete
    fi
  done
  echo "# $TNS_RUNTIME $(runtime_version), $1: ${#calls[@]} calls, $points kill points, ${#wrong[@]} with something torn, failing or left; $missed not met" >&3
  ((points > 0 && missed <= 3)) || fail "nothing was killed: $(cat "$WORK/trace")"
  ((${#wrong[@]} == 0)) || fail "${wrong[@]:0:10}"
}

# Lets CALL's system calls fail, each with one of the errors of a storage that is full, read-only, closed or broken (in
# `make stress` with each of them). Calls that cannot fail so are left out: memory, signals, and close, which strace would
# leave undone. After each: `outcome`, whether what came of it is right; then `again` and what follows as in a sweep.
sweep_errors() { # sweep_errors NAME
  local calls name number error errors=(ENOSPC EROFS EACCES EIO) points=0 helped=0 failed=0 index wrong=()
  local cannot='^(brk|mmap|munmap|mprotect|madvise|arch_prctl|set_tid_address|set_robust_list|rseq|prlimit64|getrandom|rt_sig.*|close|execve|exit_group|wait4|waitid|fcntl|sigaltstack|poll|clone3?|gettid|get.*id) '
  mapfile -t calls < <(list_calls | grep -Ev "$cannot")
  BASE=$(settled)
  for index in "${!calls[@]}"; do
    is_chosen "$index" || continue
    read -r name number <<<"${calls[index]}"
    for error in "${errors[@]}"; do
      ((STEP == 1)) || error=${errors[index % ${#errors[@]}]}
      prepare
      rm -f "$WORK/log"
      inject "error=$error" "$name" "$number"
      AT=$(grep -F '(INJECTED)' "$WORK/trace" | cut -c 1-200)
      ((++points))
      if ((INJECTED == 0)); then ((++helped)); else ((++failed)); fi
      { outcome && clear && again && nothing_is_left; } >"$WORK/why" 2>&1 || {
        wrong+=("$AT: exit code $INJECTED, $(head -n 2 "$WORK/printed"): $(cut -c 1-300 "$WORK/why" | head -n 20)")
        clear
        find_temporary -delete
      }
      ((STEP == 1)) || break
    done
  done
  echo "# $TNS_RUNTIME $(runtime_version), $1: $points errors, $helped times it went on, $failed times it ended with an error, ${#wrong[@]} times wrongly" >&3
  ((points > 0)) || fail "nothing was tried"
  ((${#wrong[@]} == 0)) || fail "${wrong[@]:0:15}"
}

# Where a container or a process is not helped, the log says so.
says_so() { grep -Eq '"?level"?[=:]"?warning' "$WORK/log" || fail "not a word in the log"; }

# Nothing but the file itself may be compared: every byte, mode and owner.
same() { cmp "$1" "$2" && is "$(stat -c '%a %u %g' "$1")" "$(stat -c '%a %u %g' "$2")"; }
one_of() { same "$1" "$2" 2>/dev/null || same "$1" "$3" || fail "$1 is neither the old one nor the new one"; }

# Every file of two folders, with its content.
contents() { (cd "$1" && find . -type f -exec sha256sum {} + | sort -k 2); }
same_contents() { diff <(contents "$1") <(contents "$2"); }

# The container has been restored, so that exec needs a view, with a child that exec has started.
start_restored() {
  start shim c
  checkpoint shim c first
  sleep 0.1
  restore shim c first
  background shim c
}

# Two processes on the host's time, in the container's tree: an image that cannot be restored.
make_mixed() { # make_mixed IMAGE
  start_restored
  stray c 'tail -f /dev/null'
  checkpoint bare c "$1"
  bare delete --force c >/dev/null 2>&1 || true
}

# Every file of the image is the old or the new one; so is what is kept beside it.
each_old_or_new() {
  local file name
  for file in "$WORK"/image/*; do
    name=${file##*/}
    cmp -s "$file" "$WORK/mixed/$name" || cmp -s "$file" "$WORK/repaired/$name" ||
      fail "$name is neither the old one nor the new one" || return
  done
  for file in "$WORK"/mixed/*; do
    [[ -e $WORK/image/${file##*/} ]] || fail "${file##*/} is gone" || return
  done
}

copy_of() { # copy_of IMAGE: made anew as the image
  rm -rf "$WORK/image"
  cp -a "$WORK/$1" "$WORK/image"
}
