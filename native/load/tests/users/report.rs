//! What is written is all there.

use serde_json::Value;

use crate::support::{C2S, StandIn};

/// The value at this path, which must be there and say something.
fn at<'a>(json: &'a Value, path: &str) -> &'a Value {
    let value = json.pointer(path);
    let value = value.unwrap_or_else(|| panic!("{path} is not in {json:#}"));
    assert!(!value.is_null(), "{path} is null");
    value
}

#[test]
fn the_json_is_complete_and_the_text_says_the_same() {
    let stand_in = StandIn::start(C2S, &[]);
    let pid = stand_in.pid();
    let load = "--users 10,30 --rate 200 --hold 100ms --chatter 100 --for 1s --churn 5";
    let outcome = stand_in
        .users(&format!("{load} --server-pid {pid} --patience 20s"))
        .run();
    outcome.assert_clean();
    stand_in.done();

    let json = &outcome.json;
    for top in [
        "version", "urls/0", "domain", "accounts", "body", "seed", "patience",
    ] {
        at(json, &format!("/{top}"));
    }
    assert!(at(json, "/memory_per_user/rss").is_number());
    assert_eq!(at(json, "/faults"), 0);
    for (number, users) in [(0, 10), (1, 30)] {
        let step = at(json, &format!("/steps/{number}"));
        assert_eq!(at(step, "/users"), users);
        assert_eq!(at(step, "/online"), users);
        assert_eq!(at(step, "/hold/online"), users);
        for latency in ["logins", "chatter"] {
            for of in ["count", "mean", "p50", "p90", "p99", "p999", "max"] {
                let value = at(step, &format!("/{latency}/latency/{of}"));
                assert!(value.as_f64().unwrap() > 0.0, "{latency} {of}");
            }
        }
        for count in ["sent", "arrived"] {
            assert_eq!(at(step, &format!("/chatter/{count}")), 100);
        }
        for none in ["lost", "doubled", "disordered", "damaged", "unsent"] {
            assert_eq!(at(step, &format!("/chatter/{none}")), 0);
        }
        for some in ["memory/rss", "memory/pss", "generator/rss", "generator/pss"] {
            assert!(
                at(step, &format!("/{some}")).as_u64().unwrap() > 100_000,
                "{some}"
            );
        }
        for bytes in ["read", "written"] {
            let bytes = at(step, &format!("/chatter/{bytes}")).as_u64().unwrap();
            assert!(bytes > 100 * 128, "{bytes}");
        }
        for cost in ["login_cost", "hold/cost", "chatter_cost"] {
            assert!(at(step, &format!("/{cost}/seconds")).as_f64().unwrap() > 0.0);
            at(step, &format!("/{cost}/server_cpu"));
            at(step, &format!("/{cost}/generator_cpu"));
        }
        assert!(at(step, "/chatter/generator_cpu").as_f64().unwrap() > 0.0);
    }
    for part in [
        "10 users\n",
        "30 users\n",
        "0 lost, 0 doubled",
        "p99.9",
        "server",
    ] {
        assert!(
            outcome.text.contains(part),
            "{part:?} not in {}",
            outcome.text
        );
    }
}
