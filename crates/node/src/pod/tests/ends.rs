//! How pods end.

use super::*;

#[test]
fn a_deleted_pod_ends_by_hook_signal_and_force() {
    let hook = json!({"containers": [{"name": "m", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]});
    let mut table = Table::new(hook.clone());
    table.prepared();
    table.step(0);
    table.started("m", 0, 0);
    table.delete(10);
    assert_eq!(table.step(1), ["event Killing", "hook m"]);
    assert_eq!(table.step(2), NOTHING);
    table.record.pre_stop_done("m", 0);
    assert_eq!(table.step(3), ["term m"]);
    assert_eq!(table.step(10), NOTHING);
    assert_eq!(table.step(11), ["kill m"]);
    assert_eq!(table.step(12), NOTHING);
    table.exited("m", 0, 137, 12);
    assert_eq!(table.phase(), "Failed");
    assert_eq!(table.step(12), ["finish Confirm"]);
    assert_eq!(table.step(13), NOTHING, "once");

    let mut table = Table::new(hook);
    table.prepared();
    table.step(0);
    table.started("m", 0, 0);
    table.delete(10);
    table.step(1);
    assert_eq!(table.step(11), ["term m"], "the hook took all the time");
    assert_eq!(table.step(13), ["kill m"]);
}

#[test]
fn the_end_can_be_hastened() {
    for (grace, then, done) in [(1, None, "kill m"), (0, None, "kill m"), (30, Some(Then::Forget), "kill m")]
    {
        let mut table = Table::new(one("Always"));
        table.prepared();
        table.step(0);
        table.started("m", 0, 0);
        table.delete(30);
        assert_eq!(table.step(1), ["event Killing", "term m"]);
        table.delete(grace);
        if let Some(then) = then {
            must_end(&mut table.record, then, at(2).elapsed);
        }
        table.step(2);
        table.step(3);
        table.exited("m", 0, 137, 4);
        let finished = if then.is_some() { "finish Forget" } else { "finish Confirm" };
        assert_eq!(table.step(4), [finished], "{grace} {done}");
    }
}

#[test]
fn who_is_evicted_ends_sooner_however_much_time_it_had() {
    for how in ["deleted", "failed", "over"] {
        let mut spec = one("Always");
        spec["terminationGracePeriodSeconds"] = 1000.into();
        let mut table = Table::new(spec);
        table.prepared();
        table.step(0);
        table.started("m", 0, 0);
        match how {
            "deleted" => table.delete(1000),
            "failed" => {
                let message = String::new();
                table.record.failed =
                    Some(Failure { reason: "DeadlineExceeded", message, is_disruption: false });
            }
            _ => table.pod.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap(),
        }
        assert_eq!(table.step(1), ["event Killing", "term m"], "{how}");
        table.record.must_hurry(Duration::from_secs(1), at(5));
        table.record.must_hurry(Duration::from_secs(100), at(5));
        assert_eq!(table.step(5), NOTHING, "{how}");
        assert_eq!(table.step(6), ["kill m"], "{how}: the earlier counts");
    }
}

#[test]
fn a_pod_deleted_before_it_ran_is_confirmed_at_once() {
    let mut table = Table::new(one("Always"));
    table.delete(30);
    assert_eq!(table.step(0), ["finish Confirm"]);

    let mut table = Table::new(one("Always"));
    table.step(0);
    table.delete(30);
    assert_eq!(table.step(1), NOTHING, "its folder is being made");
    table.record.prepared(Ok("127.1.1.1".parse().unwrap()), at(1));
    assert_eq!(table.step(1), ["finish Confirm"]);
}
