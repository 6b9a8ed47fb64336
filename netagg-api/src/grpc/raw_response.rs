//! A response message that is encoded once and sent many times.

use prost::DecodeError;
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, skip_field};

/// A message in its encoded form. Each further response costs only a copy of the bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawResponse(Bytes);

impl RawResponse {
    pub(super) fn new(message: &impl Message) -> Self {
        Self(message.encode_to_vec().into())
    }
}

impl Message for RawResponse {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    /// Not used: a server only encodes responses.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buffer, context)
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
