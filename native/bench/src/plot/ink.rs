//! Colours: the same for the same thing in every plot, told apart by colour-blind readers too.

use plotters::style::RGBColor;

use crate::side::Side;

/// Whose, or what kind, something is: its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Stock ejabberd.
    Stock,
    /// ejabberd with megaphone.
    Megaphone,
    /// The ECM: what comes on top of [`Ink::Megaphone`].
    Ecm,
    /// The stand-in, or no edge.
    Floor,
    /// haproxy.
    Haproxy,
    /// nginx.
    Nginx,
    /// One of several kinds within a stack, from 0 to 7.
    Kind(u8),
}

/// For kinds within a stack: none of them a side's.
const KINDS: [RGBColor; 8] = [
    RGBColor(0x4c, 0x9f, 0x70),
    RGBColor(0x8d, 0x6a, 0x9f),
    RGBColor(0xd9, 0xb4, 0x4a),
    RGBColor(0x5d, 0x5f, 0x71),
    RGBColor(0xc9, 0x6d, 0x8a),
    RGBColor(0x9f, 0xc1, 0x7f),
    RGBColor(0xb8, 0xa1, 0xc9),
    RGBColor(0xa8, 0xb0, 0xb8),
];

impl Ink {
    /// The colour.
    pub fn colour(self) -> RGBColor {
        match self {
            Self::Stock => RGBColor(0xe0, 0x7b, 0x39),
            Self::Megaphone => RGBColor(0x1f, 0x5f, 0xa6),
            Self::Ecm => RGBColor(0x8f, 0xbc, 0xe6),
            Self::Floor => RGBColor(0x9a, 0xa0, 0xa6),
            Self::Haproxy => RGBColor(0x4c, 0x9f, 0x70),
            Self::Nginx => RGBColor(0x8d, 0x6a, 0x9f),
            Self::Kind(number) => KINDS[usize::from(number) % KINDS.len()],
        }
    }
}

impl From<Side> for Ink {
    fn from(side: Side) -> Self {
        match side {
            Side::Stock => Self::Stock,
            Side::Megaphone => Self::Megaphone,
            Side::Floor => Self::Floor,
        }
    }
}
