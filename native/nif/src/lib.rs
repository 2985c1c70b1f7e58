//! megaphone inside the BEAM.
