// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/medirecord/medirecord/internal/app"
)

type auditKeyCmd struct {
	Origin string `required:"" placeholder:"NAME/EPOCH" help:"The log's name with its epoch, such as medirecord.example/audit/1."`
}

func (auditKeyCmd) Help() string {
	return `Prints a new signing key on standard output, for MEDIRECORD_TRAIL_KEY_FILE (mode
0600), and its verifying key on standard error, for the tlog-policy of everybody
who verifies: witnesses, auditors, yourself.

To replace a key, add the new one as a second line: both sign. When every policy
has the new verifying key, take the old line out.

Examples:
  (umask 077; medirecord audit key --origin medirecord.example/audit/1 > trail.key)
  (umask 077; medirecord audit key --origin medirecord.example/audit/1 >> trail.key)`
}

func (c *auditKeyCmd) Run(e *env) error {
	signer, verifier, err := app.NewTrailKey(c.Origin)
	if err != nil {
		return usage{err}
	}
	fmt.Fprintln(e.out, signer)
	fmt.Fprintf(e.err, "log %s\n", verifier)
	return nil
}

type auditEpochCmd struct{}

func (auditEpochCmd) Help() string {
	return `After a logical restore transaction ids begin anew, and after a rollback to an old
backup the log that was signed is longer than the one that is there: neither can
be continued, and the sealer refuses to. This closes the log as it is and begins
the next. It holds what was not sealed, and its first entry of its own holds the
last head of the old one.

It needs MEDIRECORD_MIGRATE_DATABASE_URL. Afterwards add a key named after the new
epoch to MEDIRECORD_TRAIL_KEY_FILE, its line to every policy, and the log to the
witnesses. Make the key after the epoch has begun: by that the sealer tells it
from one that somebody invented in the database. After a rollback to before an
epoch began, run it until it names an epoch that was never signed. Verify the old log first, with what is kept elsewhere: what a backup
took back is named only by that.

Example:
  medirecord audit epoch`
}

func (auditEpochCmd) Run(e *env) error {
	cfg, err := e.config("", "")
	if err != nil {
		return err
	}
	epoch, origin, err := app.BeginEpoch(e.ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "epoch %d has begun: the log is %s\nnext: medirecord audit key --origin %s >> the file of MEDIRECORD_TRAIL_KEY_FILE\n", epoch, origin, origin)
	return nil
}
