// SPDX-License-Identifier: Apache-2.0

package pglocal

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// account is who PostgreSQL runs as: it refuses to run as root.
type account struct {
	uid, gid int
	name     string
	dropped  bool // we are root, and become this account in the child
}

// nobody is Debian's, for a machine with PostgreSQL's programs and without its
// account.
const nobody = 65534

// serverAccount returns the current user, or for root the user "postgres", or
// else nobody.
func serverAccount() (account, error) {
	uid := os.Geteuid()
	if uid != 0 {
		return account{uid: uid, gid: os.Getegid(), name: "uid " + strconv.Itoa(uid)}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return account{uid: nobody, gid: nobody, name: "nobody", dropped: true}, nil //nolint:nilerr // no such user is the answer, not a failure
	}
	id, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, fmt.Errorf("the user postgres has no numeric id: %w", err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return account{}, fmt.Errorf("the user postgres has no numeric group: %w", err)
	}
	if id == 0 {
		return account{}, fmt.Errorf("the user postgres is root, and PostgreSQL does not run as root")
	}
	return account{uid: id, gid: gid, name: "postgres", dropped: true}, nil
}

// credential returns what a child needs to become the account; nil when it is
// already. Supplementary groups are dropped with it.
func (a account) credential() *syscall.Credential {
	if !a.dropped {
		return nil
	}
	return &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
}
