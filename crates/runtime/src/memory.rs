//! Memory that a process needs to start and not to run.
//!
//! Start-up walks through a good part of the executable: argument parsing, YAML, building tables. The kernel keeps those
//! pages of code mapped, so they count as resident for the life of the process. Here they are given back once; what
//! the process really runs comes back page by page, from the page cache.

use std::fs;
use std::io;

/// Unmaps the pages of the executable's code; the kernel maps those that are used again. Call it once, when start-up is
/// over.
///
/// # Errors
/// When `/proc/self/maps` cannot be read or the kernel refuses; nothing has changed then.
pub fn release_startup_code() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let here = release_startup_code as fn() -> io::Result<()> as usize;
    let code = maps.lines().filter_map(Mapping::parse).find(|mapping| mapping.holds(here));
    match code {
        Some(code) if code.is_pure_code => code.release(),
        _ => Ok(()),
    }
}

/// A line of `/proc/self/maps`.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    /// Private, executable and not writable.
    is_pure_code: bool,
}

impl Mapping {
    fn parse(line: &str) -> Option<Mapping> {
        let mut words = line.split(' ');
        let (start, end) = words.next()?.split_once('-')?;
        Some(Mapping {
            start: usize::from_str_radix(start, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            is_pure_code: words.next()? == "r-xp",
        })
    }

    fn holds(&self, address: usize) -> bool {
        (self.start..self.end).contains(&address)
    }

    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "no crate offers this safely")]
    fn release(&self) -> io::Result<()> {
        let start = std::ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: the range is one whole mapping, as the kernel just told. It holds this very function, so it is code of a
        // file, and it is not writable, so none of its pages differs from the file. After MADV_DONTNEED an access reads the
        // same bytes from the file again (madvise(2)); the file of a running program cannot be written (ETXTBSY).
        match unsafe { libc::madvise(start, self.end - self.start, libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn release(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_other_mappings() {
        let code =
            Mapping::parse("55e6d7959000-55e6d8b1c000 r-xp 00521000 fe:00 9977861    /usr/bin/meltemi");
        assert_eq!(
            code,
            Some(Mapping { start: 0x55e6_d795_9000, end: 0x55e6_d8b1_c000, is_pure_code: true })
        );
        let data =
            Mapping::parse("55e6d8b1c000-55e6d8bae000 r--p 016e3000 fe:00 9977861    /usr/bin/meltemi");
        assert!(!data.unwrap().is_pure_code);
        assert_eq!(Mapping::parse("garbage"), None);
    }

    #[test]
    fn the_program_goes_on_after_its_code_was_released() {
        release_startup_code().unwrap();
        let sum: u64 = (1..=100).sum();
        assert_eq!(sum, 5050);
    }
}
