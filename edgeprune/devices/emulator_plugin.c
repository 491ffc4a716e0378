/*
 * A plugin for QEMU's user mode that counts the instructions of the emulated program, exactly.
 *
 * The program marks a point by a system call without effect: access() of an empty name with the impossible mode MARK,
 * which the C library turns into faccessat(). At each mark the plugin writes one line, "mark COUNT", into QEMU's log
 * (-d plugin -D FILE); COUNT is the number of instructions since the start of the program. A system call ends a
 * translated block, so no block is cut by a mark.
 *
 * Compiled on the user's machine. Debian's qemu-user ships no header, so what is needed of the plugin interface
 * (documented at https://www.qemu.org/docs/master/devel/tcg-plugins.html) is declared here. API is the number of
 * that interface: 1 up to QEMU 8, 2 and higher from QEMU 9 on. What is used here is the same in all of them.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#define MARK 0x6502
#ifndef FACCESSAT
#define FACCESSAT 48 /* on aarch64 */
#endif

struct qemu_plugin_tb;
typedef void on_block_t(uint64_t plugin, struct qemu_plugin_tb *block);
typedef void on_run_t(unsigned int cpu, void *data);
typedef void on_call_t(uint64_t plugin, unsigned int cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin, on_block_t *callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, on_run_t *callback, int flags, void *data);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t plugin, on_call_t *callback);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_outs(const char *text);

__attribute__((visibility("default"))) int qemu_plugin_version = API;

static uint64_t count;

static void block_runs(unsigned int cpu, void *instructions) { count += (uintptr_t)instructions; }

static void block_translated(uint64_t plugin, struct qemu_plugin_tb *block) {
    qemu_plugin_register_vcpu_tb_exec_cb(block, block_runs, 0, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void system_call(uint64_t plugin, unsigned int cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    char line[40];
    if (number != FACCESSAT || (uint32_t)a3 != MARK) return;
    snprintf(line, sizeof line, "mark %" PRIu64 "\n", count);
    qemu_plugin_outs(line);
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}
