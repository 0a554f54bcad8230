package main

import (
	"context"

	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
)

func init() {
	programs["kube-apiserver"] = func() int { return cli.Run(apiserver.NewAPIServerCommand()) }
	programs["kube-controller-manager"] = func() int {
		return cli.Run(controllermanager.NewControllerManagerCommand())
	}
	programs["kube-scheduler"] = func() int { return cli.Run(scheduler.NewSchedulerCommand()) }
	programs["kube-proxy"] = func() int { return cli.Run(proxy.NewProxyCommand()) }
	programs["kubelet"] = func() int {
		// The command sets up its own signals, and panics where that was done before it.
		return cli.Run(kubelet.NewKubeletCommand(context.Background()))
	}
	programs["kubectl"] = func() int {
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
		return 0
	}
}
