//! Process authentication groups.
