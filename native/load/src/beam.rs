//! An Erlang node's own account of its memory, by kind and by type of process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How to reach a node: by Erlang distribution, from an `erl` that is started for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// `name@host`.
    pub name: String,
    /// Its cookie; by default the one in the user's `.erlang.cookie`.
    pub cookie: Option<String>,
    /// The port it listens on, for a node without epmd (`erl -erl_epmd_port`).
    pub port: Option<u16>,
}

/// What a node says of itself. All in bytes unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// `erlang:memory/0`: total, processes, binary, ets, code, system, ...
    pub memory: BTreeMap<String, u64>,
    /// What the allocators hold from the system, whether in use or not (`erts_alloc` carriers).
    pub allocated: u64,
    /// What of `allocated` is in use; the rest is the allocators' overhead.
    pub used: u64,
    /// What a NIF says it holds, by name, where it is one that says it (`megaphone`).
    pub nifs: BTreeMap<String, u64>,
    /// Number and memory of processes by type: `ejabberd_c2s`, `ejabberd_http`, ...
    pub processes: BTreeMap<String, Processes>,
    /// Ports that are open.
    pub ports: u64,
    /// Descriptors that are open in the node's process.
    pub descriptors: u64,
}

/// The processes of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Processes {
    /// How many.
    pub count: u64,
    /// `process_info(Pid, memory)` of all of them.
    pub memory: u64,
}

impl Node {
    /// Asks the node. With `collect`, it has every process collect its garbage twice before.
    /// Blocks until the node has answered. The error says what went wrong, for a person.
    pub fn account(&self, _collect: bool) -> Result<Account, String> {
        todo!()
    }
}
