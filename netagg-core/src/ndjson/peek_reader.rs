//! A reader whose next bytes can be examined before they are read.

use std::io::{self, BufRead, ErrorKind, Read};

/// The largest number of bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// A reader with a buffer, whose next bytes can be examined without consuming them.
pub(super) struct PeekReader<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<R> PeekReader<R> {
    /// A reader of the bytes of `reader`.
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }

    /// The bytes that are in memory.
    pub(super) fn buffer(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn get_ref(&self) -> &R {
        &self.reader
    }
}

impl<R: Read> PeekReader<R> {
    /// The next bytes: at least `len` bytes, unless the input ends before. `len` must not exceed the size of the buffer.
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        while self.buffer().len() < len {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.buffer())
    }

    /// Skips bytes that are zero.
    pub(super) fn skip_zeros(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.peek(1)?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let is_done = zeros < bytes.len() || zeros == 0;
            self.consume(zeros);
            if is_done {
                return Ok(());
            }
        }
    }
}

impl<R: Read> Read for PeekReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: Read> BufRead for PeekReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.peek(1)
    }

    fn consume(&mut self, amount: usize) {
        self.start = (self.start + amount).min(self.end);
    }
}
