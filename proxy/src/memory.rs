//! Memory given back to the system.

/// Gives back what is free. Envoy's message descriptors, with which a bootstrap is read and a dump is written, are megabytes for a moment; the
/// allocator would keep their pages, because what lives on lies above them.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: it has no preconditions; the allocator locks its own arenas (malloc_trim(3)).
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
