// Command nodetool does for the cluster's scripts what a shell cannot:
//
//	nodetool init                                 first process of a node: reaps children, ends on SIGTERM
//	nodetool ranges PODS SERVICES NODES COUNT     checks the address ranges, prints what follows from them
//	nodetool certs DIR CLUSTER SERVICE NODE=IP... writes CAs, certificates, service-account keys and kubeconfigs
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "init":
		reap()
		return nil
	case len(args) == 5 && args[0] == "ranges":
		count, err := strconv.Atoi(args[4])
		if err != nil {
			return fmt.Errorf("WEFT_CLUSTER_NODES: %q is not a number of nodes", args[4])
		}
		plan, err := newPlan(args[1], args[2], args[3], count)
		if err != nil {
			return err
		}
		fmt.Print(plan.shell())
		return nil
	case len(args) >= 5 && args[0] == "certs":
		return writeCredentials(args[1], args[2], args[3], args[4:])
	}
	return fmt.Errorf("nodetool: cannot make sense of %q: init, ranges PODS SERVICES NODES COUNT or certs DIR CLUSTER SERVICE NODE=IP", args)
}

// reap is the whole life of a PID namespace's first process. When it ends, the kernel ends everything else in the
// namespace: to stop a node is to end this process.
func reap() {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
