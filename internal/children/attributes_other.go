// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package children

import (
	"syscall"
	"time"
)

// attributes leaves the death signal out: only Linux has it. Elsewhere a
// supervisor that is killed with -9 leaves its children behind.
func attributes(s Spec) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: s.Credential, Setpgid: true}
}

// loosely does nothing: only Linux has timer slack.
func loosely(time.Duration) {}
