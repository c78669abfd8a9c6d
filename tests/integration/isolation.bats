#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The tests themselves: whatever one of them has come to, the next one finds what it would have found as the first.

load helpers

@test "a test that fails and leaves all there can be fails none but itself" {
  # A file of its own, whose tests are not this file's.
  sed 's/^  | \?//' >"$BATS_TEST_TMPDIR/inner.bats" <<'END'
  | load /tns/integration/helpers
  | # There is no second try.
  | BATS_TEST_RETRIES=0
  |
  | what_there_is() {
  |   {
  |     ls -A /tmp /run /run/runc /run/crun /etc/tns-shim
  |     awk '{ print $5, substr($7, 1, 6) }' /proc/self/mountinfo
  |     find /sys/fs/cgroup -type d | sort
  |     pgrep --list-full --full 'tail|sleep 1000|conmon|unshare'
  |   } 2>&1 | sed "s,${WORK#/tmp/},WORK,"
  | }
  |
  | @test "first" { what_there_is >"$BATS_FILE_TMPDIR/before"; }
  |
  | @test "fails" {
  |   start shim c
  |   start bare frozen
  |   bare pause frozen
  |   "$TNS_RUNTIME" run --detach --bundle "$BUNDLE" elsewhere </dev/null >/dev/null 2>&1
  |   stray c
  |   # In the same control group as the tests; one has no parent among them.
  |   (while :; do sleep 1000; done) >/dev/null 2>&1 3>&- &
  |   busybox setsid sh -c 'sleep 1000 & sleep 1000 &' >/dev/null 2>&1 3>&-
  |   unshare --time --fork sleep 1000 >/dev/null 2>&1 3>&- &
  |   mount --make-rprivate /
  |   mkdir -p "$WORK/a disk" /run/tns-shim /etc/tns-shim
  |   mount -t tmpfs tmpfs "$WORK/a disk"
  |   mount -t tmpfs -o size=4k tmpfs /run/tns-shim
  |   mount --bind "$STATE" "$STATE"
  |   echo nonsense >/etc/tns-shim/config.toml
  |   cd /run/tns-shim
  |   bare() { fail "this is the test's own"; }
  |   [[ $(what_there_is) != "$(cat "$BATS_FILE_TMPDIR/before")" ]]
  |   unset WORK STATE BUNDLE ROOTFS SHIM HOST_NS PIDS
  |   echo "as it should"
  |   false
  | }
  |
  | @test "next" { diff "$BATS_FILE_TMPDIR/before" <(what_there_is); }
  |
  | @test "starts" {
  |   start shim c
  |   one_namespace c
  |   start shim frozen
  | }
END
  rm -r "$WORK"
  env --unset=BATS_TEST_TIMEOUT bats --tap "$BATS_TEST_TMPDIR/inner.bats" >"$BATS_TEST_TMPDIR/said" 2>&1 3>&- 4>&- || true
  output=$(cat "$BATS_TEST_TMPDIR/said")
  contains "$output" "# as it should"
  echo "$output"
  is "$(grep '^\(not \)\?ok' <<<"$output")" "ok 1 first
not ok 2 fails
ok 3 next
ok 4 starts"
}
