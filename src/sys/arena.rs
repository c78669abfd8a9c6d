// SPDX-License-Identifier: Apache-2.0
//! Memory for a process that soon becomes another program.
//!
//! What the shim needs is small and used once. An allocator that could serve a long life has a beginning of its own, which is a
//! fifth of what a call costs that is passed on. So memory comes from one piece that the kernel makes where it is touched, and
//! only what was handed out last goes back into it. What has no room is the C library's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One piece of so many bytes.
pub struct Arena<const SIZE: usize> {
    memory: UnsafeCell<[MaybeUninit<u8>; SIZE]>,
    /// Bytes; what lies behind is nobody's.
    used: AtomicUsize,
}

// SAFETY: whoever has moved `used` over some bytes has them alone, and they are only looked at through pointers to them.
unsafe impl<const SIZE: usize> Sync for Arena<SIZE> {}

impl<const SIZE: usize> Default for Arena<SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const SIZE: usize> Arena<SIZE> {
    /// All of it is free.
    pub const fn new() -> Self {
        Self { memory: UnsafeCell::new([MaybeUninit::uninit(); SIZE]), used: AtomicUsize::new(0) }
    }

    fn start(&self) -> *mut u8 {
        self.memory.get().cast()
    }

    /// How far behind its start this is; none if it is the C library's.
    fn offset(&self, at: *mut u8) -> Option<usize> {
        Some(at.addr().wrapping_sub(self.start().addr())).filter(|offset| *offset < SIZE)
    }

    /// Where something of this layout lies, and ends, if so much is used.
    fn place(&self, used: usize, layout: Layout) -> Option<(usize, usize)> {
        let start = self.start().addr();
        let offset = (start + used).checked_next_multiple_of(layout.align())? - start;
        let end = offset.checked_add(layout.size())?;
        (end <= SIZE).then_some((offset, end))
    }

    /// Whether the use could be moved, which it can only for what was handed out last.
    fn move_end(&self, from: usize, to: usize) -> bool {
        to <= SIZE && self.used.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: what is handed out is aligned, as long as it was asked for, and nobody else's until it is given back; each piece goes
// back to where it came from, which its address tells. Nothing here panics.
unsafe impl<const SIZE: usize> GlobalAlloc for Arena<SIZE> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let end = |used| self.place(used, layout).map(|(_, end)| end);
        let before = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, end);
        match before.ok().and_then(|used| self.place(used, layout)) {
            Some((offset, _)) => self.start().wrapping_add(offset),
            // SAFETY: the same that the caller has promised.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        match self.offset(at) {
            Some(offset) => {
                self.move_end(offset + layout.size(), offset);
            }
            // SAFETY: it is not from here, so it is from there.
            None => unsafe { System.dealloc(at, layout) },
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(at) else {
            // SAFETY: it is not from here, so it is from there.
            return unsafe { System.realloc(at, layout, size) };
        };
        let moved = offset.checked_add(size).is_some_and(|end| self.move_end(offset + layout.size(), end));
        if moved || size <= layout.size() {
            return at;
        }
        // SAFETY: the caller has promised that this size is one that a layout can have; the old and the new piece are two, and
        // as much is copied as both have.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(at, new, layout.size().min(size));
                self.dealloc(at, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn pieces_are_aligned_apart_and_keep_what_is_in_them() {
        let arena = Arena::<4096>::new();
        let mut pieces = Vec::new();
        for (number, align) in [1, 8, 2, 64, 1, 4096, 16].into_iter().cycle().take(200).enumerate() {
            let size = 1 + number * 7 % 90;
            // SAFETY: the size is not zero, and as many bytes are written.
            let at = unsafe {
                let at = arena.alloc(layout(size, align));
                at.write_bytes(u8::try_from(number).unwrap(), size);
                at
            };
            assert_eq!(at.addr() % align, 0);
            pieces.push((at, size, align));
        }
        assert!(pieces.iter().any(|(at, ..)| arena.offset(*at).is_none()), "more than it has was asked for");
        // Every other one grows, or shrinks, wherever it is.
        for (number, (at, size, align)) in pieces.iter_mut().enumerate().filter(|(number, _)| number % 2 == 0) {
            let new = if number % 4 == 0 { *size * 3 } else { size.div_ceil(2) };
            // SAFETY: the piece is from there, of that layout; what is new of it is written.
            unsafe {
                *at = arena.realloc(*at, layout(*size, *align), new);
                for grown in *size..new {
                    at.add(grown).write(u8::try_from(number).unwrap());
                }
            }
            *size = new;
        }
        for (number, (at, size, align)) in pieces.into_iter().enumerate() {
            // SAFETY: as many bytes were written; then it goes back, once.
            unsafe {
                let bytes = std::slice::from_raw_parts(at, size);
                assert!(bytes.iter().all(|byte| usize::from(*byte) == number), "{number}: {bytes:?}");
                arena.dealloc(at, layout(size, align));
            }
        }
    }

    #[test]
    fn what_was_handed_out_last_grows_where_it_is_and_goes_back() {
        let arena = Arena::<4096>::new();
        // SAFETY: the layouts are those of the pieces.
        unsafe {
            let first = arena.alloc(layout(100, 1));
            let last = arena.alloc(layout(100, 1));
            assert_eq!(arena.realloc(last, layout(100, 1), 3000), last);
            let moved = arena.realloc(first, layout(100, 1), 200);
            assert_eq!(moved, last.add(3000));
            arena.dealloc(moved, layout(200, 1));
            arena.dealloc(last, layout(3000, 1));
            assert_eq!(arena.alloc(layout(4000 - 100, 1)), last);
            // There is no room for this any more.
            let elsewhere = arena.alloc(layout(4000, 1));
            assert!(arena.offset(elsewhere).is_none());
            arena.dealloc(elsewhere, layout(4000, 1));
            assert_eq!(arena.used.load(Ordering::Relaxed), 4000);
        }
    }
}
