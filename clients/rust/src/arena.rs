//! The memory that a pool numbers, mapped by this process.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    ptr::NonNull,
    sync::atomic::{AtomicU8, Ordering},
};

use memmap2::{MmapOptions, MmapRaw};
use percent_encoding::percent_decode_str;

use crate::{Error, v1::SessionAttached};

const SCHEME: &str = "shm://";

/// A pool's memory: `regions` arrays one after the other, each of `total_blocks` pieces of
/// `block_bytes / regions` bytes. A block has the piece of its number in each region.
///
/// The bytes are shared with all engines of the pool, and nobody checks who may touch them: only
/// blocks that the engine holds under a valid lease are its own. Ask
/// [`lease_valid`](crate::Session::lease_valid) right before each write.
///
/// [`read`](Self::read) and [`write`](Self::write) copy byte by byte with atomic operations, which is
/// sound whatever others do meanwhile. [`block`](Self::block) gives the address, for kernels and bulk
/// copies; to go through it is `unsafe`, since other processes write there, too.
///
/// The mapping outlives its session, and the pool.
pub struct Arena {
    map: MmapRaw,
    total_blocks: u32,
    reserved_blocks: u32,
    regions: u32,
    piece_bytes: usize,
}

impl Arena {
    pub(crate) fn open(attached: &SessionAttached) -> Result<Self, Error> {
        let SessionAttached { total_blocks, reserved_blocks, block_bytes, regions, .. } = *attached;
        let uri = &attached.memory_uri;
        let path = uri.strip_prefix(SCHEME).filter(|path| path.starts_with('/'));
        let Some(path) = path else {
            return Err(Error::Usage(format!(
                "the pool's memory is {uri:?}, and an arena maps {SCHEME}/PATH only"
            )));
        };
        let path = percent_decode_str(path).decode_utf8();
        let path = path.map_err(|_| Error::Usage(format!("{uri:?} holds no path in UTF-8")))?;
        let wrong = |problem: String| Error::Usage(format!("{path}, the pool's memory, {problem}"));
        let size = u64::from(total_blocks).checked_mul(block_bytes).filter(|size| *size > 0);
        let size = size.and_then(|size| usize::try_from(size).ok());
        let whole = regions > 0 && block_bytes % u64::from(regions) == 0;
        let Some(size) = size.filter(|_| whole) else {
            return Err(wrong(format!(
                "cannot be: {total_blocks} blocks of {block_bytes} bytes make no {regions} regions"
            )));
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&*path)
            .map_err(|error| wrong(format!("cannot be opened: {error}")))?;
        let found = file.metadata().map_err(|error| wrong(format!("cannot be read: {error}")))?;
        if !found.is_file() || found.len() != size as u64 {
            return Err(wrong(format!(
                "has {} bytes, and should have {size}: it is not the file that the server made",
                found.len()
            )));
        }
        let map = MmapOptions::new().len(size).map_raw(&file);
        let map = map.map_err(|error| wrong(format!("cannot be mapped: {error}")))?;
        let piece_bytes = size / total_blocks as usize / regions as usize;
        Ok(Self { map, total_blocks, reserved_blocks, regions, piece_bytes })
    }

    /// Bytes of a block in one region.
    pub fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// Blocks in the pool.
    pub fn total_blocks(&self) -> u32 {
        self.total_blocks
    }

    /// Arrays that the memory is divided into.
    pub fn regions(&self) -> u32 {
        self.regions
    }

    /// The bytes of a block in a region: `piece_bytes` of them, mapped for as long as this arena.
    ///
    /// To make a slice of it is `unsafe`, and right only while no thread and no process writes them,
    /// or, for a `&mut`, touches them at all: while the engine holds the block, and its lease is valid.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`]: the pool has no such block or region, or never issues it.
    pub fn block(&self, number: u32, region: u32) -> Result<NonNull<[u8]>, Error> {
        if number >= self.total_blocks || number < self.reserved_blocks {
            return Err(Error::Usage(format!(
                "block {number} is none that the pool issues: these are {} to {}",
                self.reserved_blocks,
                self.total_blocks - 1
            )));
        }
        if region >= self.regions {
            return Err(Error::Usage(format!("region {region} is none of {}", self.regions)));
        }
        let place = region as usize * self.total_blocks as usize + number as usize;
        let start = self.map.as_mut_ptr().wrapping_add(place * self.piece_bytes);
        let start = NonNull::new(start).expect("a mapping is never at address 0");
        Ok(NonNull::slice_from_raw_parts(start, self.piece_bytes))
    }

    /// Copy bytes of a block in a region, from its byte `at` on.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`]: as for [`block`](Self::block), or the piece has fewer bytes.
    pub fn read(&self, number: u32, region: u32, at: usize, bytes: &mut [u8]) -> Result<(), Error> {
        let from = self.part(number, region, at, bytes.len())?;
        for (byte, from) in bytes.iter_mut().zip(from) {
            *byte = from.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// Copy bytes into a block in a region, from its byte `at` on.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn write(&self, number: u32, region: u32, at: usize, bytes: &[u8]) -> Result<(), Error> {
        let to = self.part(number, region, at, bytes.len())?;
        for (to, byte) in to.iter().zip(bytes) {
            to.store(*byte, Ordering::Relaxed);
        }
        Ok(())
    }

    fn part(&self, number: u32, region: u32, at: usize, size: usize) -> Result<&[AtomicU8], Error> {
        let piece = self.block(number, region)?;
        if at > piece.len() || size > piece.len() - at {
            let piece = piece.len();
            return Err(Error::Usage(format!(
                "{size} bytes at {at} are not in a piece of {piece}"
            )));
        }
        // SAFETY: the part is inside the mapping, which lives as long as `self` and is only ever
        // touched through atomics here; an AtomicU8 is laid out as a byte.
        Ok(unsafe { std::slice::from_raw_parts(piece.as_ptr().cast::<AtomicU8>().add(at), size) })
    }
}
