//! What one more user takes: the slope between two moments with different numbers of users.
//!
//! A node's memory without users, its code, its tables' first pages, is the same at both and drops
//! out, which it does not where memory is divided by users.

use megaphone_load::beam::{Account, Processes};
use serde::{Deserialize, Serialize};

/// One side at one moment. Bytes unless said otherwise.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Users that were logged in, all idle.
    pub users: u32,
    /// The node's resident memory.
    pub rss: u64,
    /// The same, with what is shared divided.
    pub pss: u64,
    /// What the node says of itself.
    pub account: Account,
    /// The edges' resident memory, of all of them.
    pub ecm_rss: u64,
    /// The same, with what is shared divided.
    pub ecm_pss: u64,
}

/// What one user takes. Bytes unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PerUser {
    /// Resident memory of the node.
    pub rss: f64,
    /// The same, with what is shared divided.
    pub pss: f64,
    /// `erlang:memory(total)`.
    pub beam: f64,
    /// What the BEAM's allocators hold from the system.
    pub allocated: f64,
    /// By what it is, in the order in which it is told: together `beam`, what the allocators hold beyond that, and
    /// megaphone's NIF beside both.
    pub kinds: Vec<Kind>,
    /// Resident memory of the edges.
    pub ecm_rss: f64,
    /// The same, with what is shared divided.
    pub ecm_pss: f64,
    /// Erlang processes.
    pub processes: f64,
    /// Erlang ports.
    pub ports: f64,
    /// Descriptors of the node.
    pub descriptors: f64,
}

/// One kind of memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    /// What it is.
    pub name: String,
    /// Bytes a user.
    pub bytes: f64,
}

/// Processes of types that are not told apart.
pub const OTHERS: &str = "other processes";
/// Binaries outside of processes' heaps.
pub const BINARIES: &str = "binaries";
/// `ets` tables.
pub const ETS: &str = "ETS tables";
/// What the BEAM counts as the system's, without those above.
pub const PORTS: &str = "ports, parsers, system";
/// What megaphone's NIF holds, outside of the BEAM's allocators.
pub const NIF: &str = "megaphone's NIF";
/// What the allocators hold from the system and nobody uses.
pub const OVERHEAD: &str = "allocators' overhead";

/// A type of process with less than this many bytes a user is told among the others.
const WORTH_TELLING: f64 = 50.0;

/// What each user more takes, between two samples of one node. `from` has fewer users.
pub fn per_user(from: &Sample, to: &Sample) -> PerUser {
    let users = f64::from(to.users) - f64::from(from.users);
    let slope = |of: fn(&Sample) -> u64| (of(to) as f64 - of(from) as f64) / users;
    PerUser {
        rss: slope(|sample| sample.rss),
        pss: slope(|sample| sample.pss),
        beam: slope(|sample| memory(&sample.account, "total")),
        allocated: slope(|sample| sample.account.allocated),
        kinds: kinds(from, to, users),
        ecm_rss: slope(|sample| sample.ecm_rss),
        ecm_pss: slope(|sample| sample.ecm_pss),
        processes: slope(|sample| {
            sample
                .account
                .processes
                .values()
                .map(|kind| kind.count)
                .sum()
        }),
        ports: slope(|sample| sample.account.ports),
        descriptors: slope(|sample| sample.account.descriptors),
    }
}

/// The name of types that are put together.
const RARE: &str = "others";

/// Puts all types of processes with fewer than this many together: a node has some two hundred types that come once.
pub fn without_rare_types(mut account: Account, fewest: u64) -> Account {
    let mut others = Processes::default();
    account.processes.retain(|_, all| {
        let rare = all.count < fewest;
        if rare {
            others.count += all.count;
            others.memory += all.memory;
        }
        !rare
    });
    account.processes.insert(RARE.to_owned(), others);
    account
}

fn memory(account: &Account, kind: &str) -> u64 {
    account.memory.get(kind).copied().unwrap_or(0)
}

fn kinds(from: &Sample, to: &Sample, users: f64) -> Vec<Kind> {
    let slope =
        |of: &dyn Fn(&Account) -> u64| (of(&to.account) as f64 - of(&from.account) as f64) / users;
    let kind = |name: &str, bytes: f64| Kind {
        name: name.to_owned(),
        bytes,
    };

    let types: Vec<&String> = to.account.processes.keys().collect();
    let mut kinds = Vec::new();
    let mut told = 0.0;
    for name in types {
        let bytes = slope(&|account| {
            account
                .processes
                .get(name)
                .map_or(0, |all: &Processes| all.memory)
        });
        if bytes >= WORTH_TELLING && name != RARE {
            told += bytes;
            kinds.push(kind(name, bytes));
        }
    }
    kinds.sort_by(|one, other| other.bytes.total_cmp(&one.bytes));
    kinds.push(kind(
        OTHERS,
        slope(&|account| memory(account, "processes")) - told,
    ));

    let [binary, ets, code] =
        ["binary", "ets", "code"].map(|part| slope(&|account| memory(account, part)));
    let system = slope(&|account| memory(account, "system"));
    kinds.push(kind(BINARIES, binary));
    kinds.push(kind(ETS, ets));
    // `erlang:memory` counts what drivers and NIFs have of the BEAM's allocators as the system's. Rust has its own.
    kinds.push(kind(PORTS, system - binary - ets - code));
    kinds.push(kind(NIF, slope(&|account| account.nifs.values().sum())));
    // Not less `total`: that counts code which lies outside of the allocators.
    let overhead = slope(&|account| account.allocated) - slope(&|account| account.used);
    kinds.push(kind(OVERHEAD, overhead));
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(users: u32) -> Sample {
        let users_64 = u64::from(users);
        let memory = [
            ("total", 50_000 + users_64 * 900),
            ("processes", 20_000 + users_64 * 600),
        ];
        let system = [
            ("system", 30_000 + users_64 * 300),
            ("binary", 5 * users_64),
            ("ets", 100 * users_64),
            ("code", 20_000),
        ];
        let kind = |bytes: u64| Processes {
            count: users_64,
            memory: users_64 * bytes,
        };
        Sample {
            users,
            rss: 1_000_000 + users_64 * 1_100,
            pss: 900_000 + users_64 * 1_000,
            account: Account {
                memory: memory
                    .into_iter()
                    .chain(system)
                    .map(|(name, bytes)| (name.to_owned(), bytes))
                    .collect(),
                allocated: 80_000 + users_64 * 1_000,
                used: 50_000 + users_64 * 900,
                nifs: [("megaphone".to_owned(), users_64 * 70)].into(),
                processes: [("ejabberd_c2s", 500), ("ejabberd_http", 60), ("rare", 10)]
                    .map(|(name, bytes)| (name.to_owned(), kind(bytes)))
                    .into(),
                ports: 10,
                descriptors: 30 + users_64,
                ..Account::default()
            },
            ecm_rss: 4_000_000 + users_64 * 300,
            ecm_pss: 4_000_000 + users_64 * 290,
        }
    }

    #[test]
    fn what_is_there_without_users_drops_out() {
        let one = per_user(&sample(100), &sample(1_000));
        assert_eq!(
            (one.rss, one.pss, one.beam, one.allocated),
            (1_100.0, 1_000.0, 900.0, 1_000.0)
        );
        assert_eq!((one.ecm_rss, one.ecm_pss), (300.0, 290.0));
        assert_eq!((one.processes, one.ports, one.descriptors), (3.0, 0.0, 1.0));
    }

    #[test]
    fn rare_types_are_put_together_and_none_is_lost() {
        let one = |count| Processes {
            count,
            memory: count * 10,
        };
        let processes = [("common", one(100)), ("rare", one(1)), ("rarer", one(2))];
        let processes = processes.map(|(name, all)| (name.to_owned(), all)).into();
        let account = without_rare_types(
            Account {
                processes,
                ..Account::default()
            },
            3,
        );
        let found: Vec<_> = account.processes.into_iter().collect();
        assert_eq!(
            found,
            [
                ("common".to_owned(), one(100)),
                ("others".to_owned(), one(3))
            ]
        );
    }

    #[test]
    fn kinds_add_up_to_what_is_allocated_and_the_nif() {
        let one = per_user(&sample(100), &sample(1_000));
        let told: Vec<(&str, f64)> = one
            .kinds
            .iter()
            .map(|kind| (kind.name.as_str(), kind.bytes))
            .collect();
        let wanted = [
            ("ejabberd_c2s", 500.0),
            ("ejabberd_http", 60.0),
            (OTHERS, 40.0),
            (BINARIES, 5.0),
            (ETS, 100.0),
            (PORTS, 195.0),
            (NIF, 70.0),
            (OVERHEAD, 100.0),
        ];
        assert_eq!(told, wanted);
        assert_eq!(
            one.kinds.iter().map(|kind| kind.bytes).sum::<f64>(),
            one.allocated + 70.0
        );
    }
}
