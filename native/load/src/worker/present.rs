//! Those who chatter.

use std::mem;

use fastrand::Rng;

/// Not among them.
const NONE: u32 = u32::MAX;

/// Those who can send and receive: a set from which one can be drawn.
#[derive(Debug)]
pub(super) struct Present {
    users: Vec<u32>,
    /// Of each user, where it is in `users`, or [`NONE`].
    places: Vec<u32>,
}

impl Present {
    /// Nobody yet, of so many.
    pub(super) fn new(places: usize) -> Self {
        Self {
            users: Vec::with_capacity(places),
            places: vec![NONE; places],
        }
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether that one is among them.
    pub(super) fn has(&self, user: u32) -> bool {
        self.places[user as usize] != NONE
    }

    /// That one is among them from now on.
    pub(super) fn add(&mut self, user: u32) {
        if !self.has(user) {
            self.places[user as usize] = self.users.len() as u32;
            self.users.push(user);
        }
    }

    /// That one is not any more.
    pub(super) fn remove(&mut self, user: u32) {
        let place = mem::replace(&mut self.places[user as usize], NONE);
        if place != NONE {
            self.users.swap_remove(place as usize);
            if let Some(moved) = self.users.get(place as usize) {
                self.places[*moved as usize] = place;
            }
        }
    }

    /// Any, but `except`, each as likely as the others. `None` where there is nobody.
    pub(super) fn draw(&self, rng: &mut Rng, except: Option<u32>) -> Option<u32> {
        let others = self.users.len() - usize::from(except.is_some_and(|user| self.has(user)));
        if others == 0 {
            return None;
        }
        let drawn = self.users[rng.usize(..others)];
        // The last one stands in for the one who is left out.
        match except == Some(drawn) {
            true => self.users.last().copied(),
            false => Some(drawn),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_who_came_and_did_not_go(
            steps in prop::collection::vec((any::<bool>(), 0u32..8), 0..60),
            seed: u64,
        ) {
            let mut present = Present::new(8);
            let mut model = std::collections::BTreeSet::new();
            let mut rng = fastrand::Rng::with_seed(seed);
            for (comes, user) in steps {
                if comes {
                    present.add(user);
                    model.insert(user);
                } else {
                    present.remove(user);
                    model.remove(&user);
                }
                for user in 0..8 {
                    prop_assert_eq!(present.has(user), model.contains(&user));
                    let others: Vec<u32> = model.iter().copied().filter(|one| *one != user).collect();
                    match present.draw(&mut rng, Some(user)) {
                        Some(drawn) => prop_assert!(others.contains(&drawn)),
                        None => prop_assert!(others.is_empty()),
                    }
                }
                prop_assert_eq!(present.draw(&mut rng, None).is_none(), model.is_empty());
            }
        }
    }

    #[test]
    fn each_is_drawn_as_often_as_the_others() {
        let mut present = Present::new(5);
        (0..5).for_each(|user| present.add(user));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut drawn = [0u32; 5];
        for _ in 0..40_000 {
            let user = present.draw(&mut rng, Some(2)).expect("somebody");
            drawn[user as usize] += 1;
        }
        assert_eq!(drawn[2], 0);
        for user in [0, 1, 3, 4] {
            assert!((9_000..11_000).contains(&drawn[user]), "{drawn:?}");
        }
    }
}
