//! What a quiet user costs.

use super::*;

/// Bytes of a quiet user's session, with all that it has on the heap but for the plan that all share.
const QUIET: u64 = 160;

/// The same over BOSH, which has two connections and a name.
const QUIET_IN_BOSH: u64 = 288;

#[test]
fn a_quiet_user_is_small() {
    const USERS: usize = 100;
    for script in lives() {
        let plan = script.plan();
        let mut users = Vec::with_capacity(USERS);
        let heap = allocation_counter::measure(|| {
            users.extend((0..USERS).map(|_| script.logged_in_with(&plan).0));
        });
        let heap = u64::try_from(heap.bytes_current).unwrap() / USERS as u64;
        let user = heap + size_of::<Session>() as u64;
        let most = match script.transport {
            Transport::Bosh => QUIET_IN_BOSH,
            Transport::C2s | Transport::WebSocket => QUIET,
        };
        println!("{}: {user} bytes", script.name);
        assert!(user <= most, "{}: {user} bytes", script.name);
        assert_eq!(users.len(), USERS);
    }
}
