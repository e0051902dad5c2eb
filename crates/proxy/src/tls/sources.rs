//! Where the data of contexts is read: files and the environment of the process, while configuration is compiled.

use std::fs::File;
use std::io::Read as _;

use meltemi_compile::DataSources;

/// A file of keys or certificates is not larger than this; a bundle of every public authority has 300 KiB.
const FILE_MAX_BYTES: u64 = 16 << 20;

/// Files and variables of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Environment;

impl DataSources for Environment {
    fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        // A pipe or a terminal would hold up all configuration until somebody writes to it.
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err("not a regular file".to_owned());
        }
        let mut data = Vec::new();
        let read = File::open(path).and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut data));
        match read {
            Ok(count) if count as u64 > FILE_MAX_BYTES => Err("larger than 16 MiB".to_owned()),
            Ok(_) => Ok(data),
            Err(error) => Err(error.to_string()),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}
