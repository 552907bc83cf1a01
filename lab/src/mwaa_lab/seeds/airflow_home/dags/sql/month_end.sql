select sum(amount) from ledger where month = %(month)s -- Größe in €
