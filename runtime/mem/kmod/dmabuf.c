// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A pool as a dma-buf: mapped by processes page by page as they touch it, imported by devices.
 * Each has one of its own, so that one who may only read has a descriptor that can only be read.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/fcntl.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "kmod.h"

struct pst_export {
	struct pst_pool *pool;
	bool write;
	struct mutex lock; /* of @imports */
	struct list_head imports;
};

/* A device's view. */
struct pst_import {
	struct list_head on_export;
	struct device *dev;
	struct sg_table table;
};

static struct sg_table *pst_dma_map(struct dma_buf_attachment *attachment,
				    enum dma_data_direction direction)
{
	struct pst_export *export = attachment->dmabuf->priv;
	struct pst_import *import;
	int rc;

	if (!export->write && direction != DMA_TO_DEVICE)
		return ERR_PTR(-EACCES);
	import = kzalloc(sizeof(*import), GFP_KERNEL);
	if (!import)
		return ERR_PTR(-ENOMEM);
	rc = pst_pages_table(&export->pool->pages, &import->table);
	if (rc)
		goto free_import;
	rc = dma_map_sgtable(attachment->dev, &import->table, direction, 0);
	if (rc)
		goto free_table;
	import->dev = attachment->dev;
	mutex_lock(&export->lock);
	list_add(&import->on_export, &export->imports);
	mutex_unlock(&export->lock);
	return &import->table;

free_table:
	sg_free_table(&import->table);
free_import:
	kfree(import);
	return ERR_PTR(rc);
}

static void pst_dma_unmap(struct dma_buf_attachment *attachment, struct sg_table *table,
			  enum dma_data_direction direction)
{
	struct pst_export *export = attachment->dmabuf->priv;
	struct pst_import *import = container_of(table, struct pst_import, table);

	mutex_lock(&export->lock);
	list_del(&import->on_export);
	mutex_unlock(&export->lock);
	dma_unmap_sgtable(attachment->dev, table, direction, 0);
	sg_free_table(table);
	kfree(import);
}

/* Where devices do not see the CPU's caches, both have to be told whose turn it is. */
static int pst_begin_cpu(struct dma_buf *dmabuf, enum dma_data_direction direction)
{
	struct pst_export *export = dmabuf->priv;
	struct pst_import *import;

	mutex_lock(&export->lock);
	list_for_each_entry(import, &export->imports, on_export)
		dma_sync_sgtable_for_cpu(import->dev, &import->table, direction);
	mutex_unlock(&export->lock);
	return 0;
}

static int pst_end_cpu(struct dma_buf *dmabuf, enum dma_data_direction direction)
{
	struct pst_export *export = dmabuf->priv;
	struct pst_import *import;

	mutex_lock(&export->lock);
	list_for_each_entry(import, &export->imports, on_export)
		dma_sync_sgtable_for_device(import->dev, &import->table, direction);
	mutex_unlock(&export->lock);
	return 0;
}

/*
 * The page itself is handed out, not its frame number: so it is counted, processes can pin it for
 * RDMA and direct I/O, and the kernel maps a huge block as one where the addresses allow.
 */
static vm_fault_t pst_fault(struct vm_fault *vmf)
{
	const struct pst_export *export = vmf->vma->vm_private_data;
	const struct pst_pages *pages = &export->pool->pages;

	if (vmf->pgoff >= pages->npages)
		return VM_FAULT_SIGBUS;
	vmf->page = pst_pages_at(pages, vmf->pgoff);
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct pst_vm_ops = {
	.fault = pst_fault,
};

static int pst_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	vma->vm_private_data = dmabuf->priv;
	vma->vm_ops = &pst_vm_ops;
	/* It does not grow, is locked anyhow, and is too big for a core file. */
#ifdef PST_VM_FLAGS_SET
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
#else
	vma->vm_flags |= VM_DONTEXPAND | VM_DONTDUMP;
#endif
	return 0;
}

static void pst_release(struct dma_buf *dmabuf)
{
	struct pst_export *export = dmabuf->priv;

	pst_pool_put(export->pool);
	kfree(export);
}

static const struct dma_buf_ops pst_dmabuf_ops = {
	.map_dma_buf = pst_dma_map,
	.unmap_dma_buf = pst_dma_unmap,
	.begin_cpu_access = pst_begin_cpu,
	.end_cpu_access = pst_end_cpu,
	.mmap = pst_mmap,
	.release = pst_release,
};

struct dma_buf *pst_dmabuf(struct pst_pool *pool, bool write)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct pst_export *export;
	struct dma_buf *dmabuf;

	export = kzalloc(sizeof(*export), GFP_KERNEL_ACCOUNT);
	if (!export)
		return ERR_PTR(-ENOMEM);
	export->pool = pool;
	export->write = write;
	mutex_init(&export->lock);
	INIT_LIST_HEAD(&export->imports);
	info.ops = &pst_dmabuf_ops;
	info.size = pool->bytes;
	info.flags = O_CLOEXEC | (write ? O_RDWR : O_RDONLY);
	info.priv = export;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf))
		kfree(export);
	else
		kref_get(&pool->ref);
	return dmabuf;
}

MODULE_IMPORT_NS(DMA_BUF);
