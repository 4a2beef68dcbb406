//! A disk that fills up under a running cluster: writes are refused in time, reads go on, and there is no
//! need of a restart when there is room again.

use std::process::{Command, Stdio};

use crate::harness::{HOLDFAST, text};

/// Runs in a mount namespace of its own, so that a small disk can be had without being root.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=200m none "$DISK" || exit 1
"$HOLDFAST" up --nodes 1 --port 0 --dir "$DISK/cluster" > "$DISK/up.log" 2>&1 &
up=$!
until grep -q KUBECONFIG "$DISK/up.log"; do kill -0 $up || { cat "$DISK/up.log"; exit 1; }; done
export KUBECONFIG="$DISK/cluster/kubeconfig"
map() { printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n' "$1" | "$HOLDFAST" apply -f - 2>&1; }
map before
dd if=/dev/zero of="$DISK/filler" bs=1M 2>/dev/null
while map during-$((n = n + 1)) > "$DISK/../said"; do [ $n -lt 2000 ] || break; done
cat "$DISK/../said"
echo "read: $("$HOLDFAST" get configmap before -o name)"
rm "$DISK/filler"
until map after; do [ $((tries = tries + 1)) -lt 2000 ] || break; done
echo "kept: $("$HOLDFAST" get configmap before after -o name | tr '\n' ' ')"
kill $up
wait $up
"#;

#[test]
fn a_full_disk_refuses_writes_and_recovers_by_itself() {
    if !testing::has_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", SCRIPT])
        .env("DISK", &disk)
        .env("HOLDFAST", HOLDFAST)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&output);
    assert!(said.contains("no room left on the store's disk: free some space"), "{said}");
    assert!(said.contains("read: configmap/before"), "{said}");
    assert!(said.contains("kept: configmap/before configmap/after"), "{said}");
    assert!(output.status.success(), "{said}");
}
