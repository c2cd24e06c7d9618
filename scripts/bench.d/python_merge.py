"""What a person would write who has Python and nothing else: rows of a CSV file as messages, by the standard library.

    python_merge.py DATA PARAGRAPHS --out FILE
"""

import csv
import email.message
import email.policy
import email.utils
import sys

data, paragraphs, _, out = sys.argv[1:]
with open(data, encoding="utf-8", newline="") as rows, open(out, "wb") as mbox:
    for row in csv.DictReader(rows):
        message = email.message.EmailMessage(policy=email.policy.SMTP.clone(linesep="\n"))
        message["From"] = "Example News <news@example.org>"
        message["To"] = email.utils.formataddr((row["name"], row["email"]))
        message["Subject"] = "%s, your news of the week" % row["name"]
        message["Date"] = email.utils.formatdate()
        message["Message-ID"] = email.utils.make_msgid(domain="example.org")
        message.set_content("Hello %s,\n\n%s\nYou have %s points.\n" % (row["name"], paragraphs, row["points"]))
        mbox.write(b"From news@example.org Thu Jan  1 00:00:00 1970\nX-Envelope-To: %s\n" % row["email"].encode())
        mbox.write(message.as_bytes().replace(b"\nFrom ", b"\n>From ") + b"\n")
