//! Any bytes as what happens to two ends of a link: see `tests/world/`.

#[path = "../../tests/world/mod.rs"]
pub mod world;

use world::World;
use world::choice::Choices;

/// `data` decides what users, wires and clocks do; the checks are those of the simulation.
pub fn link_operations(data: &[u8]) {
    World::run(Choices::given(data.to_vec()), false);
}
