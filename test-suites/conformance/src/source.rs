//! Reading input files: plain or gzip (RFC 1952), by content and not by name, with a bound on what comes out.

use crate::error::{FormatError, Position};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// The most that one file may hold after decompression: a small gzip file can otherwise ask for all memory.
pub const LIMIT: u64 = 1 << 30;

/// The whole contents of a file, decompressed if it starts with the gzip magic.
pub fn read(file: &Path) -> Result<Vec<u8>, FormatError> {
    let whole = |what: String| FormatError::new(file, Position::Whole, what);
    let mut raw = Vec::new();
    let opened = File::open(file).map_err(|e| whole(format!("cannot open: {e}")))?;
    BufReader::new(opened).take(LIMIT + 1).read_to_end(&mut raw).map_err(|e| whole(format!("cannot read: {e}")))?;
    if raw.starts_with(&[0x1f, 0x8b]) {
        let packed = std::mem::take(&mut raw);
        let read = MultiGzDecoder::new(packed.as_slice()).take(LIMIT + 1).read_to_end(&mut raw);
        read.map_err(|e| {
            let at = Position::Byte(raw.len() as u64);
            FormatError::new(file, at, format!("the gzip stream is damaged: {e}"))
        })?;
    }
    if raw.len() as u64 > LIMIT {
        return Err(whole(format!("holds more than {} MiB", LIMIT >> 20)));
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn plain_gzip_and_damaged() {
        let folder = std::env::temp_dir().join(format!("umbra-source-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("x");
        std::fs::write(&file, b"plain").unwrap();
        assert_eq!(read(&file).unwrap(), b"plain");

        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&[7; 5000]).unwrap();
        let packed = gz.finish().unwrap();
        std::fs::write(&file, &packed).unwrap();
        assert_eq!(read(&file).unwrap(), [7; 5000]);

        std::fs::write(&file, &packed[..packed.len() - 9]).unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("gzip stream is damaged"), "{error}");
        let missing = read(&folder.join("none")).unwrap_err().to_string();
        assert!(missing.contains("cannot open"), "{missing}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
