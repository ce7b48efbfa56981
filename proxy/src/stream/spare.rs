//! Buffers that nobody uses at the moment.
//!
//! A connection needs buffers while bytes move and none while it idles, which is most of its life. So they are borrowed from the thread,
//! and given back when they run empty: idle connections cost no buffer, and busy ones no allocation.

use std::cell::RefCell;

/// Capacity of a buffer. Larger reads bring nothing (measured between 4 and 64 KiB).
pub const SIZE: usize = 16 * 1024;

/// Buffers kept at most, and the largest that is kept: 4 MiB per worker at the very worst, after a burst.
const MOST: usize = 64;
const LARGEST: usize = 64 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Gives `buffer` room if it has none at all.
pub fn ensure(buffer: &mut Vec<u8>) {
    if buffer.capacity() == 0 {
        *buffer = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(SIZE));
    }
}

/// Takes the room of a buffer whose content nobody needs any more.
pub fn give_back(buffer: &mut Vec<u8>) {
    buffer.clear();
    if (SIZE..=LARGEST).contains(&buffer.capacity()) {
        let buffer = std::mem::take(buffer);
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                spare.push(buffer);
            }
        });
    } else {
        *buffer = Vec::new();
    }
}
