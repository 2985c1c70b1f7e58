//! Taking turns, so that what disturbs the machine disturbs all who are compared.

use std::collections::BTreeMap;

use crate::error::Result;

/// Has each of `who` measured `runs` times, in turns: A B, B A, A B. Gives each one's values in the order of
/// the runs. `run` is told who, and which run it is, from 0.
pub fn in_turns<K: Copy + Ord, T>(
    who: &[K],
    runs: usize,
    mut run: impl FnMut(K, usize) -> Result<T>,
) -> Result<BTreeMap<K, Vec<T>>> {
    let mut found: BTreeMap<K, Vec<T>> = who.iter().map(|&key| (key, Vec::new())).collect();
    for number in 0..runs {
        let mut order = who.to_vec();
        if number % 2 == 1 {
            order.reverse();
        }
        for key in order {
            let value = run(key, number)?;
            found.entry(key).or_default().push(value);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_turns_around_at_each_run() {
        let mut order = String::new();
        let found = in_turns(&['a', 'b'], 3, |who, run| {
            order.push(who);
            Ok(run)
        });
        assert_eq!(order, "abbaab");
        assert_eq!(found.unwrap()[&'b'], [0, 1, 2]);
    }
}
