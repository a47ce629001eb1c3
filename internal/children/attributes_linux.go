// SPDX-License-Identifier: Apache-2.0

package children

import (
	"syscall"
	"time"
)

func attributes(s Spec) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Credential: s.Credential,
		// A group of its own: Ctrl-C on the terminal goes to the supervisor,
		// which stops its children in order, and not to all at once.
		Setpgid:   true,
		Pdeathsig: s.DeathSignal,
	}
}

// loosely sets how late the kernel may wake this thread, and so every process
// and thread that it starts from now on; 0 is back to what it was. It fails
// only where the kernel knows no such thing, and then nothing is lost but time.
func loosely(slack time.Duration) {
	const timerSlack = 29 // PR_SET_TIMERSLACK, prctl(2)
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, timerSlack, uintptr(slack.Nanoseconds()), 0)
}
