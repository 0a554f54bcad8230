// Command avatar-node is every program of a one-node Kubernetes in one binary.
//
// It links the upstream modules and dispatches to their own commands by the
// name it was called by (argv[0], a symbolic link) or by its first argument:
//
//	avatar-node kube-apiserver --etcd-servers=…
//	kubectl get pods            (a link named kubectl)
//
// One binary because the parts share nearly all of their code: together they
// link once and take 230 MB where the separate programs take 700.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// programs maps a program's name to the function that runs it to its end and
// returns its exit status. os.Args is already that program's own.
var programs = map[string]func() int{}

func main() {
	name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	run, known := programs[name]
	if !known {
		if len(os.Args) < 2 {
			usage()
		}
		name = os.Args[1]
		if run, known = programs[name]; !known {
			usage()
		}
		os.Args = append([]string{name}, os.Args[2:]...)
	}
	os.Exit(run())
}

func usage() {
	names := make([]string, 0, len(programs))
	for name := range programs {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintf(os.Stderr, "usage: %s PROGRAM [ARGS]\nprograms: %s\n", os.Args[0], strings.Join(names, " "))
	os.Exit(2)
}
