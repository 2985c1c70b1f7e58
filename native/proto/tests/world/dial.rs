//! How an edge's dials become links, fresh or resumed, on both sides.

use megaphone_proto::LinkError;
use megaphone_proto::auth::Secret;
use megaphone_proto::control::Control;
use megaphone_proto::handshake::{Handshake, Identity, Step};
use megaphone_proto::link::{LinkConfig, Resume, Role};

use super::World;
use super::choice::mix;
use super::end::End;
use super::ledger::at;
use super::wire::{Seat, Wire};

impl World {
    /// Does no wire carry the edge's link, or is about to?
    pub(super) fn may_dial(&self) -> bool {
        let left = |wire: &Wire| matches!(wire.seats[at(Role::Edge)], Seat::Left);
        self.wires.iter().all(left)
    }

    pub(super) fn dial(&mut self) {
        self.tally.dials += 1;
        self.next_dial = self.now + self.choices.size(4_000);
        let number = self.tally.dials;
        let mut config = self.configs[at(Role::Edge)].link_config(Role::Edge, number);
        config.resume = self.edge.as_ref().map(|end| Resume {
            link: end.number.to_string(),
            token: token(end.number),
            received: end.link.received(),
        });
        if config.secret.is_some() && self.faults && self.choices.once_in(10) {
            config.secret = Secret::new(b"a secret of some other file").ok();
        }
        note!(self, "dial {number}, {:?}", config.resume);
        let edge = Handshake::new(config);
        let hello = edge.hello().expect("version 2").to_frame();
        let node = Handshake::new(self.node_config());
        let due = self.due();
        let mut wire = Wire::new(number, [edge, node], self.now);
        wire.write(Role::Edge, hello, due);
        self.wires.push(wire);
    }

    fn node_config(&self) -> LinkConfig {
        let nonce = (1 << 32) + self.tally.dials;
        self.configs[at(Role::Node)].link_config(Role::Node, nonce)
    }

    /// Bytes that came in a handshake.
    pub(super) fn greet(&mut self, which: usize, role: Role, mut input: &[u8]) {
        while let Seat::Greeting(greeting) = &mut self.wires[which].seats[at(role)] {
            match greeting.handshake.next(&mut input) {
                Ok(None) => return,
                Ok(Some(Step::Hello)) => self.answer(which),
                Ok(Some(Step::Up { version })) => {
                    assert_eq!(version, 2);
                    match role {
                        Role::Edge => self.edge_up(which),
                        Role::Node => self.node_up(which),
                    }
                }
                Err(LinkError::Auth { .. }) => {
                    self.tally.refused += 1;
                    return self.leave(which, role, "refuses");
                }
                Err(error) => panic!("{error}"),
            }
        }
        self.hear(which, role, input);
    }

    /// The node has an edge's hello: whose link is it?
    fn answer(&mut self, which: usize) {
        let wire = &self.wires[which];
        let Seat::Greeting(greeting) = &wire.seats[at(Role::Node)] else {
            return;
        };
        let resume = resume_of(&greeting.handshake);
        let resumed = resume.and_then(|resume| self.detach(resume, self.wires[which].number));
        let number = resumed.map_or(self.links + 1, |(number, _)| number);
        self.links = self.links.max(number);
        let identity = Identity {
            link: number.to_string(),
            token: token(number),
            resumed: resumed.map(|(_, received)| received),
        };
        let due = self.due();
        let wire = &mut self.wires[which];
        if let Seat::Greeting(greeting) = &mut wire.seats[at(Role::Node)] {
            greeting.answered = Some((number, resumed.is_some()));
            let answer = greeting.handshake.answer(identity);
            wire.write(Role::Node, answer.to_frame(), due);
        }
    }

    /// Parks the link that is asked for, winds it back and reserves it for wire `claim`. The
    /// answer is its number, and what the node has received of it.
    fn detach(&mut self, resume: Resume, claim: u64) -> Option<(u64, u64)> {
        let number = resume.link.parse().ok()?;
        if resume.token != token(number) {
            return None;
        }
        // A dial that was given up, and comes when the link has gone on since, must cost nothing.
        let retained = &self.node.get(&number)?.retained;
        if !retained.may_rewind(resume.received) {
            self.tally.old += 1;
            return None;
        }
        let carries = |wire: &Wire| wire.seats[at(Role::Node)].carries(number);
        if let Some(which) = self.wires.iter().position(carries) {
            self.leave(which, Role::Node, "is dialled anew");
        }
        let end = self.node.get_mut(&number)?;
        assert!(end.rewind(resume.received));
        end.claim = claim;
        Some((number, end.link.received()))
    }

    /// The node takes a link into use: one that goes on, or a fresh one.
    fn node_up(&mut self, which: usize) {
        let wire = &mut self.wires[which];
        let Some(greeting) = wire.take_greeting(Role::Node) else {
            return;
        };
        let (number, resumed) = greeting.answered.expect("a node answers before it is up");
        if !resumed {
            note!(self, "the node has a fresh link {number}");
            let link = greeting.handshake.finish();
            let bounds = self.configs[at(Role::Node)].bounds();
            let end = End::new(Role::Node, number, link, bounds, self.now);
            self.node.insert(number, end);
        } else {
            match self.node.get_mut(&number) {
                Some(end) if end.claim == wire.number => end.carry_on(self.now),
                // The link was dialled anew since, or its time is over.
                _ => {
                    self.tally.late += 1;
                    return self.leave(which, Role::Node, "comes too late");
                }
            }
            note!(self, "the node goes on with link {number}");
        }
        self.wires[which].seats[at(Role::Node)] = Seat::Link(number);
    }

    /// The edge has ejabberd's hello: its link goes on, or a fresh one takes its place.
    fn edge_up(&mut self, which: usize) {
        let due = self.due();
        let wire = &mut self.wires[which];
        let Some(greeting) = wire.take_greeting(Role::Edge) else {
            return;
        };
        if let Some(auth) = greeting.handshake.auth() {
            wire.write(Role::Edge, auth.to_frame(), due);
        }
        let link = greeting
            .handshake
            .peer()
            .and_then(|hello| hello.link.clone());
        let number = link.expect("ejabberd names a link").parse().unwrap();
        if let Some(received) = greeting.handshake.resumed() {
            let Some(end) = self.edge.as_mut().filter(|end| end.number == number) else {
                // Its time was over while it was dialled.
                self.tally.late += 1;
                return self.leave(which, Role::Edge, "has no such link any more");
            };
            assert!(end.rewind(received), "ejabberd says it has {received}");
            end.carry_on(self.now);
            note!(self, "the edge goes on with link {number}");
            self.tally.resumed += 1;
        } else {
            note!(self, "the edge has a fresh link {number}");
            self.tally.fresh += 1;
            self.lose_edge();
            let link = greeting.handshake.finish();
            let bounds = self.configs[at(Role::Edge)].bounds();
            self.edge = Some(End::new(Role::Edge, number, link, bounds, self.now));
        }
        self.wires[which].seats[at(Role::Edge)] = Seat::Link(number);
    }

    /// Somebody dials who knows neither the secret nor a token, and tries all the same.
    pub(super) fn stranger(&mut self) {
        let mut config = self.configs[at(Role::Edge)].link_config(Role::Edge, 0);
        config.secret = None;
        config.resume = self.node.keys().next_back().map(|number| Resume {
            link: number.to_string(),
            token: token(0),
            received: self.choices.size(1_000),
        });
        let hello = Handshake::new(config)
            .hello()
            .expect("version 2")
            .to_frame();
        let mut node = Handshake::new(self.node_config());
        assert_eq!(node.next(&mut &hello[..]), Ok(Some(Step::Hello)));
        let found = resume_of(&node).and_then(|resume| self.detach(resume, u64::MAX));
        assert_eq!(found, None, "a stranger has a link");
        node.answer(Identity {
            link: "stranger".into(),
            token: token(u64::MAX),
            resumed: None,
        });
        let proof = "00".repeat(32);
        let guess = Control::Auth { proof }.to_frame();
        let heard = node.next(&mut &guess[..]);
        if self.configs[at(Role::Node)].secret.is_some() {
            assert!(matches!(heard, Err(LinkError::Auth { .. })), "{heard:?}");
            self.tally.refused += 1;
        }
        note!(self, "a stranger dialled");
    }
}

/// The link that the edge of this handshake wants to go on with.
fn resume_of(handshake: &Handshake) -> Option<Resume> {
    let hello = handshake.peer()?;
    Some(Resume {
        link: hello.resume.clone()?,
        token: hello.token.clone()?,
        received: hello.received?,
    })
}

/// What only the two ends of link `number` know.
fn token(number: u64) -> String {
    format!("{:016x}{:016x}", mix(number), mix(!number))
}
