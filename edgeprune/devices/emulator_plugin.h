/*
 * What edgeprune's plugins for QEMU's user mode use of its plugin interface, and the system call that marks a point.
 *
 * The program marks a point by a system call without effect: faccessat() with an impossible mode, the kind of mark, and
 * an empty name. A system call ends a translated block, so no block is cut by a mark.
 *
 * Debian's qemu-user ships no header, so what is needed of the interface (documented at
 * https://www.qemu.org/docs/master/devel/tcg-plugins.html) is declared here. API is the number of that interface: 1 up
 * to QEMU 8, 2 and higher from QEMU 9 on. What is declared here is the same in all of them.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#define MARK 0x6502
#ifndef FACCESSAT
#define FACCESSAT 48 /* on aarch64 */
#endif

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void on_block_t(uint64_t plugin, struct qemu_plugin_tb *block);
typedef void on_run_t(unsigned int cpu, void *data);
typedef void on_access_t(unsigned int cpu, uint32_t info, uint64_t address, void *data);
typedef void on_call_t(uint64_t plugin, unsigned int cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin, on_block_t *callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, on_run_t *callback, int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *instruction, on_access_t *callback, int flags, int rw,
                                      void *data);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t plugin, on_call_t *callback);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *instruction);
unsigned qemu_plugin_mem_size_shift(uint32_t info);
_Bool qemu_plugin_mem_is_store(uint32_t info);
void qemu_plugin_outs(const char *text);

__attribute__((visibility("default"))) int qemu_plugin_version = API;
