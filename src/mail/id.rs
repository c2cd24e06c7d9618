//! Small integers that name things, each of a type of its own so that they cannot be mixed up.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $repr:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $repr);

        impl $name {
            /// The id as an index into a table.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// A message of the batch, in input order, from 0. Reports count from 1: [`MessageNo::ordinal`].
    MessageNo,
    u32
);
id!(
    /// A recipient of the batch, in input order over all messages, from 0: one row of the report.
    RecipientNo,
    u32
);
id!(
    /// A destination: the domain (or address literal, or relay) that a forward-path leads to.
    DestinationId,
    u32
);
id!(
    /// A site: the exact set of MX hosts that serves one or more destinations. Session limits hang on it.
    SiteId,
    u32
);
id!(
    /// A queue: 0 is the general one, the others are specific.
    QueueId,
    u16
);
id!(
    /// A worker thread, numbered within its queue; never used twice in a run.
    WorkerId,
    u32
);

id!(
    /// A source address: which of the configured ones (`--bind`) a session is made from; 0 if there is one or none.
    SourceNo,
    u8
);

impl MessageNo {
    /// The number people see: the first message of a batch is 1.
    pub fn ordinal(self) -> u64 {
        u64::from(self.0) + 1
    }
}

impl QueueId {
    /// The queue that takes every destination no specific queue handles.
    pub const GENERAL: QueueId = QueueId(0);
}
