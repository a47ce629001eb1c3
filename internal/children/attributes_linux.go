// SPDX-License-Identifier: Apache-2.0

package children

import "syscall"

func attributes(s Spec) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Credential: s.Credential,
		// A group of its own: Ctrl-C on the terminal goes to the supervisor,
		// which stops its children in order, and not to all at once.
		Setpgid:   true,
		Pdeathsig: s.DeathSignal,
	}
}
