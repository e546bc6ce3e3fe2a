//! The values that are read from an item.

/// A value that is read from an item, by its own expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// The id: one email is sent for each.
    Id,
    /// The customer's address.
    Email,
    /// The customer's name.
    Name,
    /// What the customer pays.
    Total,
    /// The currency.
    Currency,
    /// The lines of the order.
    Lines,
    /// The article of a line.
    LineName,
    /// The quantity of a line.
    LineQuantity,
    /// The unit price of a line.
    LinePrice,
    /// The customer's language.
    Language,
    /// Where the customer's reply goes.
    ReplyTo,
    /// Where a bounce goes.
    BouncesTo,
}

impl Setting {
    /// All settings.
    pub const ALL: [Self; 12] = [
        Self::Id,
        Self::Email,
        Self::Name,
        Self::Total,
        Self::Currency,
        Self::Lines,
        Self::LineName,
        Self::LineQuantity,
        Self::LinePrice,
        Self::Language,
        Self::ReplyTo,
        Self::BouncesTo,
    ];

    /// Its name, in flags and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Email => "email",
            Self::Name => "name",
            Self::Total => "total",
            Self::Currency => "currency",
            Self::Lines => "lines",
            Self::LineName => "line-name",
            Self::LineQuantity => "line-quantity",
            Self::LinePrice => "line-price",
            Self::Language => "language",
            Self::ReplyTo => "order-reply-to",
            Self::BouncesTo => "order-bounces-to",
        }
    }

    /// The default expression. The default id is the table's key.
    pub(super) fn default(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Email => "email",
            Self::Name => "name or customer_name",
            Self::Total => "total|minor",
            Self::Currency => "currency",
            Self::Lines => "lines or items",
            Self::LineName => "line if line is string else name or title",
            Self::LineQuantity => "quantity",
            Self::LinePrice => "unit_price|minor",
            Self::Language => "language",
            Self::ReplyTo | Self::BouncesTo => "none",
        }
    }
}
