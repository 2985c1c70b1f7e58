//! Questions and answers by the thousand, the next question at the moment of
//! the last answer, or right behind the connect: none may be overlooked.

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::thread::{sleep, spawn};
use std::time::Duration;

use megaphone_proto::ConnectionId;
use support::*;

/// Clients, each a thread.
const CLIENTS: usize = 8;

/// Connections of each, one after the other, and questions on each.
const CONNECTIONS: usize = 20;
const ROUNDS: usize = 50;

/// Bytes of a question and of its answer.
const QUESTION: usize = 500;
const ANSWER: usize = 100;

/// A node that answers each question, but holds one of them until another
/// comes, as BOSH does: its answer crosses others' questions.
#[derive(Default)]
struct Answers {
    open: usize,
    got: HashMap<ConnectionId, usize>,
    held: Option<ConnectionId>,
    asked: usize,
}

impl Answers {
    fn take(&mut self, node: &mut Node, got: Got) {
        match got {
            Got::Open(_) => self.open += 1,
            Got::Content(id, content) => {
                node.grant(id, content.len() as u32);
                let bytes = self.got.entry(id).or_default();
                *bytes += content.len();
                assert!(*bytes <= QUESTION, "more than was asked");
                if *bytes < QUESTION {
                    return;
                }
                *bytes = 0;
                self.asked += 1;
                let before = self.held.take();
                if self.asked.is_multiple_of(3) && self.open > 1 {
                    self.held = Some(id);
                } else {
                    node.send(id, &[2; ANSWER]);
                }
                self.answer(node, before);
            }
            Got::End(id) => {
                self.open -= 1;
                node.send(id, &[]);
                let held = self.held.take();
                self.answer(node, held);
            }
            Got::Window(..) => {}
            other => panic!("{other:?}"),
        }
    }

    fn answer(&self, node: &mut Node, held: Option<ConnectionId>) {
        if let Some(id) = held {
            node.send(id, &[2; ANSWER]);
        }
    }
}

#[test]
fn no_question_and_no_answer_is_lost() {
    let (ecm, _backend, mut node) = linked("workers = 2");
    let address = ecm.listeners[0];
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            spawn(move || {
                for connection in 0..CONNECTIONS {
                    let mut stream = client(address);
                    for round in 0..ROUNDS {
                        stream.write_all(&[1; QUESTION]).unwrap();
                        read_exact(&mut stream, ANSWER);
                        if (number + round) % 4 == 0 {
                            sleep(Duration::from_micros(50 * (round + connection) as u64));
                        }
                    }
                }
            })
        })
        .collect();
    let mut answers = Answers::default();
    while answers.asked < CLIENTS * CONNECTIONS * ROUNDS || answers.open > 0 {
        let got = node.next();
        answers.take(&mut node, got);
    }
    assert_eq!(answers.asked, CLIENTS * CONNECTIONS * ROUNDS);
    for client in clients {
        client.join().unwrap();
    }
}
